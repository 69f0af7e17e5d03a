{{/*
What a schema cannot see: settings that do not go together. Each refusal says what to change.
The constants are stacworker's own defaults (stacworker/settings.py); a test holds them against it.
*/}}
{{- define "stacworker.guards" -}}
{{- include "stacworker.guardImage" .Values.image -}}
{{- $workers := include "stacworker.workers" . | fromJson -}}
{{- if not $workers -}}
{{- fail "workers: name at least one, such as workers.items with config.consumers (README.md of the chart)" -}}
{{- end -}}
{{- if and .Values.database.existingSecret.name .Values.database.secretArn -}}
{{- fail "database: give either existingSecret or secretArn, not both" -}}
{{- end -}}
{{- if and .Values.monitoring.podMonitor.enabled .Values.monitoring.serviceMonitor.enabled -}}
{{- fail "monitoring: enable either podMonitor or serviceMonitor, else every worker is scraped twice" -}}
{{- end -}}
{{- include "stacworker.guardAlerts" . -}}
{{- include "stacworker.guardMigration" . -}}
{{- range $name, $worker := $workers -}}
{{- include "stacworker.guardWorker" (dict "name" $name "worker" $worker "root" $) -}}
{{- end -}}
{{- include "stacworker.guardConnections" (dict "workers" $workers "budget" .Values.databaseConnectionBudget) -}}
{{- end -}}

{{- define "stacworker.guardImage" -}}
{{- if not .digest -}}
{{- if eq (toString .tag) "latest" -}}
{{- fail "image.tag: latest is refused: nobody can say what runs, nor go back to it; name a version or a digest" -}}
{{- else if not .tag -}}
{{- fail "image.tag: name a version, or give image.digest" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "stacworker.guardMigration" -}}
{{- $own := .Values.migration -}}
{{- $shared := .Values.database -}}
{{- if and $own.existingSecret.name $own.secretArn -}}
{{- fail "migration: give either existingSecret or secretArn, not both" -}}
{{- end -}}
{{- if and (include "stacworker.migrates" .) (not (or $own.existingSecret.name $own.secretArn $shared.existingSecret.name $shared.secretArn (include "stacworker.namesDatabase" (dict "config" .Values.defaults.config "worker" .Values.defaults)))) -}}
{{- fail "migration: it knows no database: give migration.existingSecret or migration.secretArn, `database`, or PG* variables in `defaults` (a worker's own are not the migration's); or run `stacworker migrate` yourself and set migration.enabled: false" -}}
{{- end -}}
{{- end -}}

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
{{- if eq (dig "http" "enabled" true $config) false -}}
{{- fail (printf "%s.config.http.enabled: probes need the port: leave it open" $where) -}}
{{- end -}}
{{- if eq (int64 (dig "http" "port" 8080 $config)) 0 -}}
{{- fail (printf "%s.config.http.port: probes need a port that is known: give a number above 0" $where) -}}
{{- end -}}
{{- range $worker.extraEnv -}}
{{- if regexMatch "(?i)^STACWORKER_(CONSUMERS|COLLECTIONS|DRAIN_TIMEOUT_S|HTTP|DATABASE$|DATABASE__MAX_CONNECTIONS)" .name -}}
{{- fail (printf "%s.extraEnv: %s would win over what the chart has checked and renders: say it in config" $where .name) -}}
{{- end -}}
{{- end -}}
{{- with $worker.podDisruptionBudget -}}
{{- if eq (hasKey . "minAvailable") (hasKey . "maxUnavailable") -}}
{{- fail (printf "%s.podDisruptionBudget: give either minAvailable or maxUnavailable (null removes the other), or null for no budget" $where) -}}
{{- end -}}
{{- end -}}
{{- include "stacworker.guardGrace" (dict "where" $where "worker" $worker) -}}
{{- include "stacworker.guardScaling" (dict "where" $where "worker" $worker) -}}
{{- include "stacworker.guardDatabase" (dict "where" $where "root" .root "worker" $worker) -}}
{{- if $worker.singleItemMessages -}}
{{- include "stacworker.guardBatches" (dict "where" $where "config" $config) -}}
{{- end -}}
{{- end -}}

{{/* 15 s: what the daemon takes, at most, after its drain's deadline. */}}
{{- define "stacworker.guardGrace" -}}
{{- $drain := default 60 .worker.config.drain_timeout_s -}}
{{- $needed := addf $drain .worker.preStopSeconds 15 -}}
{{- if le (float64 .worker.terminationGracePeriodSeconds) $needed -}}
{{- fail (printf "%s.terminationGracePeriodSeconds: %v is too short: config.drain_timeout_s %v + preStopSeconds %v + a margin of 15 must be less, else SIGKILL cuts the drain off" .where .worker.terminationGracePeriodSeconds $drain .worker.preStopSeconds) -}}
{{- end -}}
{{- end -}}

{{- define "stacworker.guardScaling" -}}
{{- with .worker.autoscaling -}}
{{- if .enabled -}}
{{- if gt (int64 .minReplicas) (int64 .maxReplicas) -}}
{{- fail (printf "%s.autoscaling: minReplicas %v is more than maxReplicas %v" $.where .minReplicas .maxReplicas) -}}
{{- end -}}
{{- if and (eq .type "keda") (eq (int64 .minReplicas) 0) (include "stacworker.hasPipelines" $.worker) (not .keda.extraQueueUrls) -}}
{{- fail (printf "%s.autoscaling.minReplicas: with 0 pods nobody sees what waits for pipelines, whose queues the chart does not know: keep at least 1, or name their queues in keda.extraQueueUrls" $.where) -}}
{{- end -}}
{{- if eq .type "hpa" -}}
{{- if eq (int64 .minReplicas) 0 -}}
{{- fail (printf "%s.autoscaling.minReplicas: a HorizontalPodAutoscaler keeps at least 1 pod; type keda can have 0" $.where) -}}
{{- end -}}
{{- if not (or .hpa.metricName .hpa.metrics) -}}
{{- fail (printf "%s.autoscaling.hpa: give metricName, or metrics" $.where) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "stacworker.guardDatabase" -}}
{{- $values := .root.Values -}}
{{- if and (include "stacworker.usesDatabase" .worker) (not (or $values.database.existingSecret.name $values.database.secretArn (include "stacworker.namesDatabase" (dict "config" .worker.config "worker" .worker)))) -}}
{{- fail (printf "%s: it loads items and knows no database: give database.existingSecret or database.secretArn, or to this worker config.database, or PG* variables in extraEnv or envFrom" .where) -}}
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

{{- define "stacworker.guardConnections" -}}
{{- $sum := 0 -}}
{{- $parts := list -}}
{{- range $name, $worker := .workers -}}
{{- if include "stacworker.usesDatabase" $worker -}}
{{- $pods := ternary $worker.autoscaling.maxReplicas $worker.replicas $worker.autoscaling.enabled | int64 -}}
{{- $each := dig "database" "max_connections" 8 $worker.config | int64 -}}
{{- $sum = add $sum (mul $pods $each) -}}
{{- $parts = append $parts (printf "%s %d x %d" $name $pods $each) -}}
{{- end -}}
{{- end -}}
{{- if gt $sum (int64 .budget) -}}
{{- fail (printf "databaseConnectionBudget: workers may need %d connections (%s), the budget is %d: lower maxReplicas or config.database.max_connections, or raise the budget with the database's max_connections" $sum (join ", " $parts) (int64 .budget)) -}}
{{- end -}}
{{- end -}}
