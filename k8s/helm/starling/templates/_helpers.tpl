{{/* Names. 40 characters leave room for "-gateway", an ordinal and the revision's hash, in 63. */}}
{{- define "starling.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "starling.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "starling.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "starling.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* The kinds of pods, as JSON: what is a list in a template is a text between templates. */}}
{{- define "starling.kinds" -}}
{{- if eq .Values.mode "split" -}}["gateway", "decoder"]{{- else -}}["node"]{{- end -}}
{{- end -}}

{{/* A kind's name: {{ include "starling.workload" (list $ "gateway") }} */}}
{{- define "starling.workload" -}}
{{- $root := index . 0 -}}{{- $kind := index . 1 -}}
{{- $name := include "starling.fullname" $root -}}
{{- if eq $kind "node" -}}{{ $name }}{{- else -}}{{ $name }}-{{ $kind }}{{- end -}}
{{- end -}}

{{/* Whether something else than the chart says how many pods of a kind there are. */}}
{{- define "starling.scaled" -}}
{{- if or .hpa.enabled .keda.enabled .actuator.enabled -}}true{{- end -}}
{{- end -}}

{{/*
How many pods of a kind there are to be; "" to leave that to its scaler. What was said once and is left out the next time becomes 1 at
the API server, and all pods but one would go at once: so a scaled set that is there is told the number that it has.
*/}}
{{- define "starling.replicas" -}}
{{- $root := index . 0 -}}{{- $kind := index . 1 -}}
{{- $pods := index $root.Values $kind -}}
{{- if include "starling.scaled" $pods -}}
{{- $there := lookup "apps/v1" "StatefulSet" $root.Release.Namespace (include "starling.workload" .) | default dict -}}
{{- with dig "spec" "replicas" "" $there -}}{{ int . }}{{- end -}}
{{- else -}}
{{ int $pods.replicas }}
{{- end -}}
{{- end -}}

{{/* The kind that callers are sent to. */}}
{{- define "starling.callersKind" -}}
{{- if eq .Values.mode "split" -}}gateway{{- else -}}node{{- end -}}
{{- end -}}

{{/* The kind whose pods are scaled by pods; "" for none. */}}
{{- define "starling.actuated" -}}
{{- $root := . -}}
{{- range $kind := include "starling.kinds" . | fromJsonArray -}}{{- if (index $root.Values $kind).actuator.enabled -}}{{ $kind }}{{- end -}}{{- end -}}
{{- end -}}

{{/* The kind whose pods see to that: gateways, which it takes none of, where there are some. */}}
{{- define "starling.actuating" -}}
{{- if include "starling.actuated" . -}}{{ include "starling.callersKind" . }}{{- end -}}
{{- end -}}

{{- define "starling.lease" -}}
{{ include "starling.workload" (list . (include "starling.actuated" .)) }}-scaler
{{- end -}}

{{- define "starling.selector" -}}
app.kubernetes.io/name: {{ include "starling.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "starling.labels" -}}
{{ include "starling.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* All pods of the cluster, and nothing else of the release. */}}
{{- define "starling.nodesSelector" -}}
matchLabels:
  {{- include "starling.selector" . | nindent 2 }}
  app.kubernetes.io/part-of: starling-cluster
{{- end -}}

{{- define "starling.imageName" -}}
{{- with .Values.image.registry -}}{{ trimSuffix "/" . }}/{{- end -}}{{ .Values.image.repository }}
{{- end -}}

{{- define "starling.image" -}}
{{- if .Values.image.digest -}}
{{ include "starling.imageName" . }}@{{ .Values.image.digest }}
{{- else -}}
{{ include "starling.imageName" . }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "starling.fetchImage" -}}
{{- if .Values.models.fetch.image -}}
{{ .Values.models.fetch.image }}
{{- else -}}
{{ include "starling.imageName" . }}:{{ .Values.image.tag | default .Chart.AppVersion }}-fetch
{{- end -}}
{{- end -}}

{{- define "starling.fetches" -}}
{{- if or (eq .Values.models.source "init") (and (eq .Values.models.source "pvc") .Values.models.pvc.fetch) -}}true{{- end -}}
{{- end -}}

{{- define "starling.hasKeys" -}}
{{- if or .Values.auth.tenants .Values.auth.keysSecret.name -}}true{{- end -}}
{{- end -}}

{{- define "starling.clusterSecret" -}}
{{- .Values.cluster.secret.existingSecret | default (printf "%s-cluster" (include "starling.fullname" .)) -}}
{{- end -}}

{{- define "starling.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "starling.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{- define "starling.claim" -}}
{{- .Values.models.pvc.existingClaim | default (printf "%s-models" (include "starling.fullname" .)) -}}
{{- end -}}

{{/* Slots that one pod has for a model, or may have. */}}
{{- define "starling.slots" -}}
{{- $scaling := .scaling | default dict -}}
{{- if $scaling.enabled -}}{{ int $scaling.max }}{{- else -}}{{ mul (.hosts | default 2 | int) (.slots | default 4 | int) }}{{- end -}}
{{- end -}}

{{/* What every container is allowed: Kubernetes' "restricted" level, and no writing to its root. */}}
{{- define "starling.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- define "starling.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
# A volume with gigabytes of models is not walked through at each start.
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* A value of cluster.toml. A text in JSON is one in TOML, too; Helm's numbers are floating, TOML's are not. */}}
{{- define "starling.toml" -}}
{{- if kindIs "float64" . -}}
{{- if eq . (float64 (int64 .)) -}}{{ int64 . }}{{- else -}}{{ . }}{{- end -}}
{{- else -}}
{{ toJson . }}
{{- end -}}
{{- end -}}
