{{/* A file of rules without the alerts that are switched off, and with the runbooks where they are. */}}
{{- define "stacworker.rules" -}}
{{- $file := fromYaml .text -}}
{{- range $group := $file.groups -}}
{{- $kept := list -}}
{{- range $rule := $group.rules -}}
{{- if not (and $rule.alert (has $rule.alert $.values.disabledAlerts)) -}}
{{- if and $rule.alert $.values.runbookUrl -}}
{{- $_ := set $rule.annotations "runbook_url" (printf "%s/%s.md" (trimSuffix "/" $.values.runbookUrl) $rule.alert) -}}
{{- end -}}
{{- $kept = append $kept $rule -}}
{{- end -}}
{{- end -}}
{{- $_ := set $group "rules" $kept -}}
{{- end -}}
{{- toYaml $file -}}
{{- end -}}

{{/* An alert that is switched off by a name that there is not would stay on unseen. */}}
{{- define "stacworker.guardAlerts" -}}
{{- $known := list -}}
{{- range $path, $text := .Files.Glob "files/rules/*.y*ml" -}}
{{- range (fromYaml (toString $text)).groups -}}
{{- range .rules -}}
{{- with .alert -}}{{- $known = append $known . -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range .Values.monitoring.prometheusRule.disabledAlerts -}}
{{- if not (has . $known) -}}
{{- fail (printf "monitoring.prometheusRule.disabledAlerts: there is no alert %s; there are %s" . (join ", " $known)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
