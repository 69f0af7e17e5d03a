{{/* Parts of pods that Deployments, the migration and the tests have in common. */}}

{{- define "stacworker.databaseEnv" -}}
{{- with .name }}
- name: STACWORKER_DATABASE__DSN
  valueFrom: {secretKeyRef: {name: {{ . | quote }}, key: {{ $.key | quote }}}}
{{- end }}
{{- end -}}

{{/* HOME and TMPDIR lie in the one place that can be written to. */}}
{{- define "stacworker.baseEnv" -}}
- {name: STACWORKER_CONFIG, value: /etc/stacworker/stacworker.yaml}
- {name: HOME, value: /tmp}
- {name: TMPDIR, value: /tmp}
{{- end -}}

{{- define "stacworker.tmpVolume" -}}
- name: tmp
  emptyDir: {sizeLimit: {{ . | quote }}}
{{- end -}}

{{- define "stacworker.workerEnv" -}}
{{ include "stacworker.baseEnv" . }}
{{- with dig "environments" "folder" "" .worker.config }}
# The image names a folder of its own in this variable, and variables win over the settings' file.
- {name: STACWORKER_ENVIRONMENTS__FOLDER, value: {{ . | quote }}}
{{- end }}
{{- if include "stacworker.usesDatabase" .worker }}
{{- include "stacworker.databaseEnv" .root.Values.database.existingSecret }}
{{- end }}
{{- with .worker.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "stacworker.workerMounts" -}}
- {name: config, mountPath: /etc/stacworker/stacworker.yaml, subPath: stacworker.yaml, readOnly: true}
{{- if .worker.pipelines }}
- {name: pipelines, mountPath: /etc/stacworker/pipelines, readOnly: true}
{{- end }}
- {name: tmp, mountPath: /tmp}
{{- with .worker.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* With its length before it no two pairs of an ID and a file make one key. */}}
{{- define "stacworker.pipelineKey" -}}
{{- printf "%d.%s.%s" (len (index . 0)) (index . 0) (index . 1) -}}
{{- end -}}

{{- define "stacworker.workerVolumes" -}}
{{- $full := printf "%s-%s" (include "stacworker.fullname" .root) .name -}}
- name: config
  configMap: {name: {{ $full | quote }}}
{{- if .worker.pipelines }}
- name: pipelines
  configMap:
    name: {{ printf "%s-pipelines" $full | quote }}
    items:
      {{- range $id, $files := .worker.pipelines }}
      {{- range $file, $_ := $files }}
      - {key: {{ include "stacworker.pipelineKey" (list $id $file) | quote }}, path: {{ printf "%s/%s" $id $file | quote }}}
      {{- end }}
      {{- end }}
{{- end }}
{{ include "stacworker.tmpVolume" .worker.tmpSizeLimit }}
{{- with .worker.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* What every pod of a worker has, whoever starts it. */}}
{{- define "stacworker.podBasics" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- range $key := list "podSecurityContext" "nodeSelector" "tolerations" "affinity" "priorityClassName" "runtimeClassName" }}
{{- with get $.worker $key }}
{{ ternary "securityContext" $key (eq $key "podSecurityContext") }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end -}}
