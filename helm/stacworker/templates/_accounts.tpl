{{/* Service accounts: whose each is, and which are made. */}}
{{- define "stacworker.serviceAccountName" -}}
{{- $own := .worker.serviceAccount -}}
{{- $fullname := include "stacworker.fullname" .root -}}
{{- if $own -}}
{{- default (ternary (printf "%s-%s" $fullname .name) "default" (ne (toString $own.create) "false")) $own.name -}}
{{- else -}}
{{- with .root.Values.serviceAccount -}}
{{- default (ternary $fullname "default" .create) .name -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "stacworker.migrationAccount" -}}
{{- $own := .Values.migration.serviceAccount -}}
{{- default (ternary (printf "%s-migrate" (include "stacworker.fullname" .)) "default" $own.create) $own.name -}}
{{- end -}}

{{/*
The accounts to make, as JSON {name: annotations}: the release's and the workers' own. Those that share a name are one,
and must not want different annotations.
*/}}
{{- define "stacworker.accounts" -}}
{{- $made := dict -}}
{{- $release := .Values.serviceAccount -}}
{{- if $release.create -}}
{{- $_ := set $made (default (include "stacworker.fullname" .) $release.name) (default dict $release.annotations) -}}
{{- end -}}
{{- range $name, $worker := include "stacworker.workers" . | fromJson -}}
{{- $own := $worker.serviceAccount -}}
{{- if and $own (ne (toString $own.create) "false") -}}
{{- $account := include "stacworker.serviceAccountName" (dict "root" $ "name" $name "worker" $worker) -}}
{{- $annotations := default dict $own.annotations -}}
{{- if and (hasKey $made $account) (ne (toJson (get $made $account)) (toJson $annotations)) -}}
{{- fail (printf "workers.%s.serviceAccount: %s is made once already, with other annotations: give it the same ones, another name, or create: false" $name $account) -}}
{{- end -}}
{{- $_ := set $made $account $annotations -}}
{{- end -}}
{{- end -}}
{{- toJson $made -}}
{{- end -}}

{{/* The migration's account is a hook: it is deleted and made again before each upgrade, while pods run. */}}
{{- define "stacworker.guardAccounts" -}}
{{- $accounts := include "stacworker.accounts" . | fromJson -}}
{{- if and (include "stacworker.migrates" .) .Values.migration.serviceAccount.create -}}
{{- $migration := include "stacworker.migrationAccount" . -}}
{{- range $name, $worker := include "stacworker.workers" . | fromJson -}}
{{- if eq $migration (include "stacworker.serviceAccountName" (dict "root" $ "name" $name "worker" $worker)) -}}
{{- fail (printf "migration.serviceAccount.name: %s is worker %s's account too, and each upgrade would delete it under running pods: give another name, or make the account yourself and set create: false for both" $migration $name) -}}
{{- end -}}
{{- end -}}
{{- if hasKey $accounts $migration -}}
{{- fail (printf "migration.serviceAccount.name: %s is the release's account too: give another name, or make the account yourself and set create: false for both" $migration) -}}
{{- end -}}
{{- end -}}
{{- end -}}
