{{/* Names and labels. */}}
{{- define "stacworker.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* At most 40 characters: a worker's name (at most 20) and a suffix come after it, and 63 is the end. */}}
{{- define "stacworker.fullname" -}}
{{- $name := include "stacworker.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "stacworker.selectorLabels" -}}
app.kubernetes.io/name: {{ include "stacworker.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "stacworker.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | quote }}
{{ include "stacworker.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: stacworker
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* metadata of a resource. Takes root, name; component, annotations, labels if any. */}}
{{- define "stacworker.metadata" -}}
name: {{ .name | quote }}
labels:
  {{- include "stacworker.labels" .root | nindent 2 }}
  {{- with .component }}
  app.kubernetes.io/component: {{ . | quote }}
  {{- end }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- $annotations := merge (dict) (default dict .annotations) (default dict .root.Values.commonAnnotations) }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "stacworker.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Changes `onto` by `over`: mappings key by key, everything else replaced, null removes. */}}
{{- define "stacworker.overlay" -}}
{{- $onto := .onto -}}
{{- range $key, $value := .over -}}
{{- if kindIs "invalid" $value -}}
{{- $_ := unset $onto $key -}}
{{- else if and (kindIs "map" $value) (kindIs "map" (get $onto $key)) -}}
{{- include "stacworker.overlay" (dict "onto" (get $onto $key) "over" $value) -}}
{{- else -}}
{{- $_ := set $onto $key $value -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The enabled workers over the defaults, as {name: worker}: YAML, read back with fromYaml. */}}
{{- define "stacworker.workers" -}}
{{- $workers := dict -}}
{{- range $name, $own := .Values.workers -}}
{{- $worker := deepCopy $.Values.defaults -}}
{{- include "stacworker.overlay" (dict "onto" $worker "over" (deepCopy (default dict $own))) -}}
{{- range $key, $value := $worker.config -}}
{{- if kindIs "invalid" $value -}}
{{- $_ := unset $worker.config $key -}}
{{- end -}}
{{- end -}}
{{- if $worker.enabled -}}
{{- $_ := set $workers $name $worker -}}
{{- end -}}
{{- end -}}
{{- toJson $workers -}}
{{- end -}}

{{- define "stacworker.hasPipelines" -}}
{{- if or .pipelines (dig "pipelines" "folder" "" .config) -}}true{{- end -}}
{{- end -}}

{{/* True where settings or variables may name a database; libpq's names of it count, and what cannot be looked into. */}}
{{- define "stacworker.namesDatabase" -}}
{{- $names := or (dig "database" "secret_arn" "" .config) .worker.envFrom -}}
{{- range .worker.extraEnv -}}
{{- if or (has .name (list "PGHOST" "PGHOSTADDR" "PGSERVICE")) (has (upper .name) (list "STACWORKER_DATABASE__DSN" "STACWORKER_DATABASE__SECRET_ARN")) -}}
{{- $names = true -}}
{{- end -}}
{{- end -}}
{{- if $names -}}true{{- end -}}
{{- end -}}

{{/* True where a worker needs the database: as `loads` in stacworker's settings, or it cannot be told from here. */}}
{{- define "stacworker.usesDatabase" -}}
{{- $uses := not (empty (include "stacworker.hasPipelines" .)) -}}
{{- range (default list .config.consumers) -}}
{{- if or (ne .type "generate") (eq (default "load" .output) "load") -}}
{{- $uses = true -}}
{{- end -}}
{{- end -}}
{{- if $uses -}}true{{- end -}}
{{- end -}}

{{/* True where there is a migration: it is on, and a worker loads. */}}
{{- define "stacworker.migrates" -}}
{{- $loads := false -}}
{{- range $name, $worker := include "stacworker.workers" . | fromJson -}}
{{- if include "stacworker.usesDatabase" $worker -}}{{- $loads = true -}}{{- end -}}
{{- end -}}
{{- if and .Values.migration.enabled $loads -}}true{{- end -}}
{{- end -}}

{{/* The settings of a worker, as they stand in its ConfigMap. */}}
{{- define "stacworker.settings" -}}
{{- $config := deepCopy .worker.config -}}
{{- $http := merge (deepCopy (default dict $config.http)) (dict "host" "0.0.0.0" "port" 8080) -}}
{{- $_ := set $config "http" $http -}}
{{- $_ := set $config "drain_timeout_s" (default 60 $config.drain_timeout_s) -}}
{{- if .worker.pipelines -}}
{{- $_ := set $config "pipelines" (merge (dict "folder" "/etc/stacworker/pipelines") (default dict $config.pipelines)) -}}
{{- end -}}
{{- with .root.Values.database.secretArn -}}
{{- if include "stacworker.usesDatabase" $.worker -}}
{{- $_ := set $config "database" (merge (dict "secret_arn" .) (default dict $config.database)) -}}
{{- end -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}

{{- define "stacworker.port" -}}
{{- dig "http" "port" 8080 .config | int64 -}}
{{- end -}}
