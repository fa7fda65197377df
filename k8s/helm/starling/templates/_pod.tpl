{{/* A node's pod: root, kind, pods (the values of the kind). */}}
{{- define "starling.pod" -}}
{{- $v := .root.Values -}}{{- $root := .root -}}{{- $kind := .kind -}}{{- $pods := .pods -}}
serviceAccountName: {{ include "starling.serviceAccount" $root }}
automountServiceAccountToken: {{ eq $kind (include "starling.actuating" $root) }}
# They would be variables that begin as Starling's own do.
enableServiceLinks: false
# The longest drain: until nobody is sent here any more, then the deadline, then 2 s of last words and 10 s for decoders to end.
terminationGracePeriodSeconds: {{ add (int $v.drain.settle) (int $v.drain.deadline) 15 }}
securityContext: {{- include "starling.podSecurity" $root | nindent 2 }}
{{- with $v.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with $pods.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $pods.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $pods.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $pods.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
  {{- range $topology := list (dict "key" "kubernetes.io/hostname" "unsatisfied" $pods.spread.hosts) (dict "key" "topology.kubernetes.io/zone" "unsatisfied" $pods.spread.zones) }}
  - maxSkew: 1
    topologyKey: {{ $topology.key }}
    whenUnsatisfiable: {{ $topology.unsatisfied }}
    labelSelector:
      matchLabels:
        {{- include "starling.selector" $root | nindent 8 }}
        app.kubernetes.io/component: {{ $kind }}
    # In a rollout the old pods' places don't count for the new ones.
    matchLabelKeys: [controller-revision-hash]
    # A machine on which no pod may be started is not one that has too few.
    nodeTaintsPolicy: Honor
  {{- end }}
{{- if include "starling.fetches" $root }}
initContainers:
  - name: models
    image: {{ include "starling.fetchImage" $root }}
    imagePullPolicy: {{ $v.image.pullPolicy }}
    # The libraries are the image's own and need no fetching. A second pod at the same volume waits for the first.
    command: [sh, -ec]
    args:
      - |
        mkdir -p "$STARLING_HOME/models"
        [ -e "$STARLING_HOME/lib" ] || cp -r /var/lib/starling/lib "$STARLING_HOME/lib"
        starling models fetch "$@"
        starling models verify "$@"
        rm -rf "$STARLING_HOME/downloads"
      - models
      {{- range $v.models.serve }}
      - {{ .name | quote }}
      {{- end }}
    env:
      - {name: STARLING_HOME, value: /models}
      - {name: HOME, value: /tmp}
      {{- with $v.models.fetch.env }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    resources: {{- toYaml $v.models.fetch.resources | nindent 6 }}
    securityContext: {{- include "starling.containerSecurity" $root | nindent 6 }}
    volumeMounts:
      - {name: models, mountPath: /models}
      - {name: tmp, mountPath: /tmp}
      {{- if $v.models.catalogue }}
      - {name: config, mountPath: /models/models.toml, subPath: models.toml, readOnly: true}
      {{- end }}
{{- end }}
containers:
  - name: starling
    image: {{ include "starling.image" $root }}
    imagePullPolicy: {{ $v.image.pullPolicy }}
    args:
      - serve
      {{- if $v.auth.insecureOpen }}
      - --insecure-open
      {{- end }}
    env: {{- include "starling.env" . | nindent 6 }}
    ports:
      - {name: http, containerPort: 8080, protocol: TCP}
      {{- if and $v.listen.vosk (ne $kind "decoder") }}
      - {name: vosk, containerPort: 2700, protocol: TCP}
      {{- end }}
      {{- if ne $kind "decoder" }}
      {{- if $v.listen.audiosocket.enabled }}
      - {name: audiosocket, containerPort: 9092, protocol: TCP}
      {{- end }}
      {{- if $v.listen.wyoming.enabled }}
      - {name: wyoming, containerPort: 10300, protocol: TCP}
      {{- end }}
      {{- if $v.tls.secretName }}
      - {name: https, containerPort: 8443, protocol: TCP}
      {{- if $v.listen.vosk }}
      - {name: vosk-tls, containerPort: 2743, protocol: TCP}
      {{- end }}
      {{- if $v.quic.enabled }}
      - {name: quic, containerPort: {{ int $v.quic.port }}, protocol: UDP}
      {{- end }}
      {{- end }}
      {{- end }}
      - {name: gossip, containerPort: 7400, protocol: UDP}
      - {name: data, containerPort: 7401, protocol: UDP}
      - {name: control, containerPort: 7402, protocol: TCP}
    # Models may take minutes to load from a cold disk. Until they are, the other two probes wait.
    startupProbe:
      httpGet: {path: /startupz, port: http}
      periodSeconds: 1
      failureThreshold: 300
      timeoutSeconds: 2
    # Fails only if the process does not answer at all: a restart would cost callers what a busy node does not.
    livenessProbe:
      httpGet: {path: /livez, port: http}
      periodSeconds: 10
      failureThreshold: 6
      timeoutSeconds: 5
    readinessProbe:
      httpGet: {path: /readyz, port: http}
      periodSeconds: 2
      failureThreshold: 2
      timeoutSeconds: 2
    lifecycle:
      preStop:
        # Balancers need a moment to stop sending callers here; clients of the older protocols would be refused if it did not serve
        # on meanwhile. The signal that follows drains: the node says so to the others, hands its sessions over and ends.
        sleep: {seconds: {{ int $v.drain.settle }}}
    resources: {{- toYaml $pods.resources | nindent 6 }}
    securityContext: {{- include "starling.containerSecurity" $root | nindent 6 }}
    volumeMounts:
      - {name: config, mountPath: /etc/starling/cluster.toml, subPath: cluster.toml, readOnly: true}
      {{- if $v.models.catalogue }}
      - {name: config, mountPath: /var/lib/starling/models.toml, subPath: models.toml, readOnly: true}
      {{- end }}
      - {name: secret, mountPath: /etc/starling/secret, readOnly: true}
      {{- if $v.tls.secretName }}
      - {name: tls, mountPath: /etc/starling/tls, readOnly: true}
      {{- end }}
      - {name: tmp, mountPath: /tmp}
      {{- if eq $v.models.source "imageVolume" }}
      - {name: models, mountPath: /var/lib/starling/models, readOnly: true}
      {{- else if ne $v.models.source "image" }}
      - {name: models, mountPath: /var/lib/starling/models, subPath: models, readOnly: true}
      {{- end }}
# 288 is 0440: the group of fsGroup reads them, and nobody else.
volumes:
  - name: config
    configMap: {name: {{ include "starling.fullname" $root }}}
  - name: secret
    secret: {secretName: {{ include "starling.clusterSecret" $root }}, defaultMode: 288}
  {{- with $v.tls.secretName }}
  - name: tls
    secret: {secretName: {{ . }}, defaultMode: 288}
  {{- end }}
  - name: tmp
    emptyDir: {sizeLimit: 256Mi}
  {{- if eq $v.models.source "init" }}
  - name: models
    emptyDir: {sizeLimit: {{ $v.models.init.sizeLimit }}}
  {{- else if eq $v.models.source "pvc" }}
  - name: models
    persistentVolumeClaim: {claimName: {{ include "starling.claim" $root }}, readOnly: {{ not $v.models.pvc.fetch }}}
  {{- else if eq $v.models.source "imageVolume" }}
  - name: models
    image: {reference: {{ $v.models.imageVolume.reference | quote }}, pullPolicy: {{ $v.models.imageVolume.pullPolicy }}}
  {{- end }}
{{- end -}}

{{/* What differs between pods. */}}
{{- define "starling.env" -}}
{{- $v := .root.Values -}}
- name: POD_IP
  valueFrom: {fieldRef: {fieldPath: status.podIP}}
- name: STARLING_CONFIG
  value: /etc/starling/cluster.toml
- name: STARLING_CLUSTER__NODE_ID
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: STARLING_CLUSTER__ADVERTISE
  value: {{ ternary "[$(POD_IP)]:7400" "$(POD_IP):7400" (eq $v.cluster.ipFamily "IPv6") | quote }}
# Pods have their machine's label from Kubernetes 1.35 on; before, the zone is empty. In quotes: some clouds call a zone 0.
- name: MACHINE_ZONE
  valueFrom: {fieldRef: {fieldPath: "metadata.labels['topology.kubernetes.io/zone']"}}
- name: STARLING_CLUSTER__ZONE
  value: '"$(MACHINE_ZONE)"'
- name: STARLING_CLUSTER__COPY_MEMORY
  value: {{ .pods.copyMemory | quote }}
{{- if ne .kind "node" }}
- name: STARLING_CLUSTER__ROLES
  value: {{ .kind }}
{{- end }}
{{- if eq .kind "decoder" }}
{{- range $protocol := list "VOSK" "AUDIOSOCKET" "WYOMING" "HTTPS" "VOSK_TLS" "QUIC" }}
- {name: STARLING_LISTEN__{{ $protocol }}, value: "off"}
{{- end }}
{{- end }}
{{- if eq .kind (include "starling.actuating" .root) }}
- name: STARLING_KUBERNETES__ENABLED
  value: "true"
{{- end }}
{{- with $v.traces.endpoint }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ . | quote }}
{{- end }}
{{- with $v.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- with $v.auth.keysSecret.name }}
- name: STARLING_KEYS
  valueFrom: {secretKeyRef: {name: {{ . }}, key: {{ $v.auth.keysSecret.key }}}}
{{- end }}
{{- end -}}
