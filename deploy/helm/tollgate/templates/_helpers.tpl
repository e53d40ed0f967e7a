{{- define "tollgate.name" -}}
{{- if contains "tollgate" .Release.Name }}{{ .Release.Name }}{{ else }}{{ .Release.Name }}-tollgate{{ end }}
{{- end }}

{{- define "tollgate.selector" -}}
app.kubernetes.io/name: tollgate
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "tollgate.labels" -}}
{{ include "tollgate.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "tollgate.adminSecret" -}}
{{- .Values.admin.existingSecret | default (printf "%s-admin" (include "tollgate.name" .)) }}
{{- end }}

{{- /* The whole proxy.yaml. */}}
{{- define "tollgate.config" -}}
{{- $config := deepCopy .Values.config }}
{{- range $key := list "listen" "listeners" "admin" }}
{{- if hasKey $config $key }}
{{- fail (printf "config.%s is written by the chart; leave it out" $key) }}
{{- end }}
{{- end }}
{{- $_ := set $config "listeners" (dict "web" (dict "address" ":8080")) }}
{{- $_ := set $config "admin" (dict "address" ":9901" "token_file" "/run/secrets/tollgate-admin/token") }}
{{- if .Values.redis.url }}
{{- $redis := dict "url" .Values.redis.url }}
{{- if .Values.redis.username }}{{ $_ := set $redis "username" .Values.redis.username }}{{ end }}
{{- if .Values.redis.existingSecret }}
{{- $_ := set $redis "password_file" (printf "/run/secrets/tollgate-redis/%s" .Values.redis.passwordKey) }}
{{- end }}
{{- if hasKey $config "store" }}{{ fail "config.store and redis.url exclude each other" }}{{ end }}
{{- $_ := set $config "store" (dict "redis" $redis) }}
{{- else if and (not (hasKey $config "store")) (or .Values.autoscaling.enabled (gt (int .Values.replicas) 1)) }}
{{- fail "several pods need a store that they share, else each has its own limits: set redis.url or config.store" }}
{{- end }}
{{- toYaml $config }}
{{- end }}
