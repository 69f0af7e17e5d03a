{{/* Up quickly, down slowly: each pod that goes has to drain, and a queue that was empty is often full again soon. */}}
{{- define "stacworker.scalingBehavior" -}}
scaleUp:
  stabilizationWindowSeconds: 0
  policies:
    - {type: Pods, value: {{ .scaleUpPods | int64 }}, periodSeconds: 30}
scaleDown:
  stabilizationWindowSeconds: {{ .scaleDownStabilizationSeconds | int64 }}
  policies:
    - {type: Pods, value: 1, periodSeconds: {{ .scaleDownPeriodSeconds | int64 }}}
{{- end -}}

{{/*
The queues to count, with their regions, as JSON; KEDA goes by the one that asks for most pods. A trigger's
name says whether the queue is a consumer's or another one, so that no two have the same.
*/}}
{{- define "stacworker.queues" -}}
{{- $found := list -}}
{{- $keda := .worker.autoscaling.keda -}}
{{- $queues := default list .worker.config.consumers -}}
{{- range $number, $url := $keda.extraQueueUrls -}}
{{- $queues = append $queues (dict "name" (printf "extra-%d" $number) "trigger" (printf "extra-%d" $number) "queue_url" $url) -}}
{{- end -}}
{{- range $queues -}}
{{- $named := regexFind "^https://sqs\\.[a-z0-9-]+\\.amazonaws\\." (toString .queue_url) | trimPrefix "https://sqs." | trimSuffix ".amazonaws." -}}
{{- $region := coalesce $keda.awsRegion (dig "aws" "region" "" $.worker.config) $named -}}
{{- if not $region -}}
{{- fail (printf "workers.%s.autoscaling.keda.awsRegion: the URL of queue %s does not say its region: name it here or in config.aws.region" $.name .name) -}}
{{- end -}}
{{- $found = append $found (dict "name" (default (printf "consumer-%s" .name) .trigger) "queue_url" .queue_url "region" $region) -}}
{{- end -}}
{{- if not $found -}}
{{- fail (printf "workers.%s.autoscaling: KEDA asks the queues of config.consumers, and there are none; those of pipelines are not known to the chart: name them in keda.extraQueueUrls, or use replicas" $.name) -}}
{{- end -}}
{{- toJson $found -}}
{{- end -}}
