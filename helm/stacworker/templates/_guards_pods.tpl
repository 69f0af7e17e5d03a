{{/* Guards of how a worker's pods are made, replaced and scaled. */}}

{{/* 15 s: what the daemon takes, at most, after its drain's deadline. */}}
{{- define "stacworker.guardGrace" -}}
{{- $drain := default 60 .worker.config.drain_timeout_s -}}
{{- $needed := addf $drain .worker.preStopSeconds 15 -}}
{{- if le (float64 .worker.terminationGracePeriodSeconds) $needed -}}
{{- fail (printf "%s.terminationGracePeriodSeconds: %v is too short: config.drain_timeout_s %v + preStopSeconds %v + a margin of 15 must be less, else SIGKILL cuts the drain off" .where .worker.terminationGracePeriodSeconds $drain .worker.preStopSeconds) -}}
{{- end -}}
{{- end -}}

{{- define "stacworker.guardReplacement" -}}
{{- with .worker.podDisruptionBudget -}}
{{- if eq (hasKey . "minAvailable") (hasKey . "maxUnavailable") -}}
{{- fail (printf "%s.podDisruptionBudget: give either minAvailable or maxUnavailable (null removes the other), or null for no budget" $.where) -}}
{{- end -}}
{{- end -}}
{{- with .worker.strategy -}}
{{- $rolling := default dict .rollingUpdate -}}
{{- if and (ne .type "Recreate") (has (toString $rolling.maxSurge) (list "0" "0%")) (has (toString $rolling.maxUnavailable) (list "0" "0%")) -}}
{{- fail (printf "%s.strategy.rollingUpdate: with maxSurge and maxUnavailable both 0 no pod could be replaced: raise one of them" $.where) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* A number of what Kubernetes calls a quantity, such as 250m or 4Gi. */}}
{{- define "stacworker.quantity" -}}
{{- $text := toString . -}}
{{- $suffix := regexFind "([EPTGMk]i?|Ki|m)$" $text -}}
{{- $factors := dict "" 1 "m" 0.001 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "E" 1e18 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 "Pi" 1125899906842624 "Ei" 1152921504606846976 -}}
{{- mulf (float64 (trimSuffix $suffix $text)) (get $factors $suffix) -}}
{{- end -}}

{{- define "stacworker.guardResources" -}}
{{- $limits := dig "limits" dict (default dict .resources) -}}
{{- range $key, $wanted := dig "requests" dict (default dict .resources) -}}
{{- $limit := get $limits $key -}}
{{- if and (hasKey $limits $key) (gt (float64 (include "stacworker.quantity" $wanted)) (float64 (include "stacworker.quantity" $limit))) -}}
{{- fail (printf "%s.resources: requests.%s %v is more than limits.%s %v: raise the limit too, null removes it (what a worker does not name it has of the defaults)" $.where $key $wanted $key $limit) -}}
{{- end -}}
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
{{- if not (and (eq .type "hpa") .hpa.metrics) -}}
{{- $each := int64 .messagesPerReplica -}}
{{- range (default list $.worker.config.consumers) -}}
{{- $held := default 2000 .max_in_flight | int64 -}}
{{- if and (eq .type "load") (gt $held $each) -}}
{{- fail (printf "%s.autoscaling.messagesPerReplica: %d is less than the max_in_flight=%d of consumer %s: one pod would take the work of several, and those that come find none; raise messagesPerReplica or lower max_in_flight" $.where $each $held .name) -}}
{{- end -}}
{{- end -}}
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
