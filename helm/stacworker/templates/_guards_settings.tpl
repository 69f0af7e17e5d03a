{{/* Guards of a worker's settings, and of what a worker is as a whole. */}}
{{- define "stacworker.guardWorker" -}}
{{- $where := printf "workers.%s" .name -}}
{{- $worker := .worker -}}
{{- $config := $worker.config -}}
{{- if or (eq .name "migrate") (hasSuffix "-pipelines" .name) -}}
{{- fail (printf "%s: the chart has another use for that name; choose one that is not migrate and does not end in -pipelines" $where) -}}
{{- end -}}
{{- if not (or $config.consumers (include "stacworker.hasPipelines" $worker)) -}}
{{- fail (printf "%s: it has nothing to do: give config.consumers, pipelines or config.pipelines.folder" $where) -}}
{{- end -}}
{{- if dig "database" "dsn" "" $config -}}
{{- fail (printf "%s.config.database.dsn: a DSN is a secret and this is a ConfigMap: use database.existingSecret or database.secretArn" $where) -}}
{{- end -}}
{{- if and (or .root.Values.database.secretArn .root.Values.database.existingSecret.name) (dig "database" "secret_arn" "" $config) -}}
{{- fail (printf "%s.config.database.secret_arn: database.secretArn or existingSecret is given too; give one of them" $where) -}}
{{- end -}}
{{- include "stacworker.guardSettings" (dict "where" $where "config" $config) -}}
{{- include "stacworker.guardVariables" (dict "where" $where "variables" $worker.extraEnv) -}}
{{- include "stacworker.guardResources" (dict "where" $where "resources" $worker.resources) -}}
{{- include "stacworker.guardReplacement" (dict "where" $where "worker" $worker) -}}
{{- include "stacworker.guardGrace" (dict "where" $where "worker" $worker) -}}
{{- include "stacworker.guardScaling" (dict "where" $where "worker" $worker) -}}
{{- include "stacworker.guardDatabase" (dict "where" $where "root" .root "worker" $worker) -}}
{{- if $worker.singleItemMessages -}}
{{- include "stacworker.guardBatches" (dict "where" $where "config" $config) -}}
{{- end -}}
{{- end -}}

{{- define "stacworker.guardSettings" -}}
{{- $where := printf "%s.config" .where -}}
{{- if eq (dig "http" "enabled" true .config) false -}}
{{- fail (printf "%s.http.enabled: probes need the port: leave it open" $where) -}}
{{- end -}}
{{- if eq (int64 (dig "http" "port" 8080 .config)) 0 -}}
{{- fail (printf "%s.http.port: probes need a port that is known: give a number above 0" $where) -}}
{{- end -}}
{{- if not (has (dig "http" "host" "0.0.0.0" .config) (list "0.0.0.0" "::")) -}}
{{- fail (printf "%s.http.host: probes come from outside the pod and could not reach %s: leave it out, or take 0.0.0.0 or ::" $where .config.http.host) -}}
{{- end -}}
{{- if dig "ecs" "scale_in_protection" false .config -}}
{{- fail (printf "%s.ecs.scale_in_protection: it is for tasks of ECS, elsewhere the worker does not start: leave it out" $where) -}}
{{- end -}}
{{- $drain := default 60 .config.drain_timeout_s -}}
{{- range (default list .config.consumers) -}}
{{- $wait := dig "wait_time_s" 20 . -}}
{{- if gt (float64 $wait) (float64 $drain) -}}
{{- fail (printf "%s.drain_timeout_s: %v is shorter than consumer %s's wait_time_s %v: a receive under way at the end would be cut off, and its messages stay invisible; raise drain_timeout_s or lower wait_time_s" $where $drain .name $wait) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Variables win over the settings' file, which is what the guards have looked at. */}}
{{- define "stacworker.guardVariables" -}}
{{- range .variables -}}
{{- if regexMatch "(?i)^STACWORKER_(CONFIG$|CONSUMERS|COLLECTIONS|DRAIN_TIMEOUT_S|HTTP|ECS|PIPELINES$|PIPELINES__FOLDER|DATABASE$|DATABASE__MAX_CONNECTIONS)" .name -}}
{{- fail (printf "%s.extraEnv: %s would win over what the chart has checked and renders: say it in config" $.where .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "stacworker.guardDatabase" -}}
{{- $values := .root.Values -}}
{{- if and (include "stacworker.usesDatabase" .worker) (not (or $values.database.existingSecret.name $values.database.secretArn (include "stacworker.namesDatabase" (dict "config" .worker.config "worker" .worker)))) -}}
{{- fail (printf "%s: it loads items and knows no database: give database.existingSecret or database.secretArn, or to this worker config.database, or PGHOST or PGSERVICE in extraEnv or envFrom" .where) -}}
{{- end -}}
{{- end -}}

{{/* stacworker warns of this at start. Here it is refused: nobody reads the log of what starts well. */}}
{{- define "stacworker.guardBatches" -}}
{{- $collections := default dict .config.collections -}}
{{- $default := default 500 (dig "default" "max_batch_items" nil $collections) -}}
{{- range $id := (keys $collections | sortAlpha | default (list "default")) -}}
{{- $items := default $default (dig $id "max_batch_items" nil $collections) -}}
{{- range (default list $.config.consumers) -}}
{{- $held := default 2000 .max_in_flight -}}
{{- if and (eq .type "load") (lt (int64 $held) (int64 $items)) -}}
{{- fail (printf "%s: collections.%s.max_batch_items is %v, but consumer %s holds only max_in_flight=%v messages: a batch of single-item messages never fills; raise max_in_flight, lower max_batch_items, or set singleItemMessages: false where messages hold many items" $.where $id (int64 $items) .name (int64 $held)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
