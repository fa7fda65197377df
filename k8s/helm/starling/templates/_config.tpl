{{/* cluster.toml, the same for all pods; what differs between them is in their environment. */}}
{{- define "starling.config" -}}
{{- $any := ternary "[::]" "0.0.0.0" (eq .Values.cluster.ipFamily "IPv6") -}}
{{- $listen := .Values.listen -}}
[listen]
http = "{{ $any }}:8080"
vosk = "{{ ternary (printf "%s:2700" $any) "off" $listen.vosk }}"
audiosocket = "{{ ternary (printf "%s:9092" $any) "off" $listen.audiosocket.enabled }}"
wyoming = "{{ ternary (printf "%s:10300" $any) "off" $listen.wyoming.enabled }}"
max_connections = {{ int $listen.maxConnections }}
{{- if .Values.tls.secretName }}
https = "{{ $any }}:8443"
vosk_tls = "{{ ternary (printf "%s:2743" $any) "off" $listen.vosk }}"
{{- if .Values.quic.enabled }}
quic = "{{ $any }}:{{ int .Values.quic.port }}"
{{- end }}

[tls]
cert_file = "/etc/starling/tls/tls.crt"
key_file = "/etc/starling/tls/tls.key"
{{- end }}

[cluster]
listen = "{{ $any }}:7400"
data = "{{ $any }}:7401"
control = "{{ $any }}:7402"
# Every address that the name has is asked, until there is one.
seeds = ["{{ include "starling.fullname" . }}-gossip:7400"]
secret_file = "/etc/starling/secret/{{ .Values.cluster.secret.key }}"
copies = {{ int .Values.cluster.copies }}

[log]
format = {{ .Values.log.format | quote }}
level = {{ .Values.log.level | quote }}

[shutdown]
drain_deadline = "{{ int .Values.drain.deadline }}s"
{{- with $listen.audiosocket.tenant }}

[audiosocket]
tenant = {{ . | quote }}
{{- end }}
{{- with $listen.wyoming.tenant }}

[wyoming]
tenant = {{ . | quote }}
{{- end }}
{{- with include "starling.actuated" . }}
{{- $actuator := (index $.Values .).actuator }}

# Whether a pod takes part is in its environment.
[kubernetes]
stateful_set = {{ include "starling.workload" (list $ .) | quote }}
lease = {{ include "starling.lease" $ | quote }}
min_pods = {{ int $actuator.minReplicas }}
max_pods = {{ int $actuator.maxReplicas }}
decoders_per_pod = {{ int $actuator.decodersPerPod }}
check_interval = "{{ int $actuator.checkSeconds }}s"
drain_deadline = "{{ int $actuator.drainSeconds }}s"
dry_run = {{ $actuator.dryRun }}
{{- end }}
{{- range $table, $settings := .Values.config }}

[{{ $table }}]
{{- range $key, $value := $settings }}
{{- if not (kindIs "map" $value) }}
{{ $key }} = {{ include "starling.toml" $value }}
{{- end }}
{{- end }}
{{- range $key, $value := $settings }}
{{- if kindIs "map" $value }}

[{{ $table }}.{{ $key }}]
{{- range $name, $inner := $value }}
{{ $name }} = {{ include "starling.toml" $inner }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- range $tenant := .Values.auth.tenants }}

[[tenant]]
{{- range $key, $value := $tenant }}
{{ $key }} = {{ include "starling.toml" $value }}
{{- end }}
{{- end }}
{{- range $model := .Values.models.serve }}

[[model]]
{{- range $key, $value := omit $model "scaling" }}
{{ $key }} = {{ include "starling.toml" $value }}
{{- end }}
{{- with $model.scaling }}

[model.scaling]
{{- range $key, $value := . }}
{{ $key }} = {{ include "starling.toml" $value }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}
