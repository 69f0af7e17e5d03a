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
{{- include "stacworker.guardAccounts" . -}}
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
{{- if dig "database" "dsn" "" .Values.defaults.config -}}
{{- fail "defaults.config.database.dsn: a DSN is a secret, and the migration's ConfigMap would hold it: use database.existingSecret or database.secretArn" -}}
{{- end -}}
{{- include "stacworker.guardVariables" (dict "where" "defaults" "variables" .Values.defaults.extraEnv) -}}
{{- include "stacworker.guardResources" (dict "where" "migration" "resources" .Values.migration.resources) -}}
{{- if and $own.existingSecret.name $own.secretArn -}}
{{- fail "migration: give either existingSecret or secretArn, not both" -}}
{{- end -}}
{{- if and (include "stacworker.migrates" .) (not (or $own.existingSecret.name $own.secretArn $shared.existingSecret.name $shared.secretArn (include "stacworker.namesDatabase" (dict "config" .Values.defaults.config "worker" .Values.defaults)))) -}}
{{- fail "migration: it knows no database: give migration.existingSecret or migration.secretArn, `database`, or PGHOST or PGSERVICE in `defaults` (a worker's own are not the migration's); or run `stacworker migrate` yourself and set migration.enabled: false" -}}
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
