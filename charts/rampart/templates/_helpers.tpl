{{/* Labels of every object: Helm's and the component's. */}}
{{- define "rampart.labels" -}}
app.kubernetes.io/name: rampart
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end }}

{{/* By which pods of a component are found; never changes. */}}
{{- define "rampart.selector" -}}
app.kubernetes.io/name: rampart
app.kubernetes.io/component: {{ . }}
{{- end }}

{{- define "rampart.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* "true" where a feature is on; objects without one are always there. */}}
{{- define "rampart.has" -}}
{{- $root := index . 0 }}{{ $feature := index . 1 -}}
{{- if eq $feature "" -}}
true
{{- else if has $feature (list "hardening" "network") -}}
{{- /* `helm upgrade --reuse-values` from a chart without this value says nothing of it, and must switch nothing off. */ -}}
{{- if ne (toString (index $root.Values.features $feature)) "false" -}}true{{- end -}}
{{- else if eq $feature "verifier" -}}
{{- if $root.Values.verifier.enabled -}}true{{- end -}}
{{- else if hasPrefix "apiKey" $feature -}}
{{- if and $root.Values.features.apiKeys (index $root.Values.features $feature) -}}true{{- end -}}
{{- else if index $root.Values.features $feature -}}
true
{{- end -}}
{{- end }}

{{- define "rampart.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "rampart.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65533
runAsGroup: 65533
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* A process: its Deployment and PodDisruptionBudget.
     component, values, args, env (name to value), ports (name to number), hostNetwork. */}}
{{- define "rampart.process" -}}
{{- $root := .root }}
{{- $name := printf "rampart-%s" .component }}
{{- $admin := .values.adminPort | default 8080 | int }}
{{- /* Each name once, with the user's value: the API server refuses to apply a list that has one twice. No `merge`,
       to which a 0 is no value. */}}
{{- $first := list "RAMPART_LOG" "RAMPART_LOG_FORMAT" "RAMPART_ADMIN_ADDRESS" }}
{{- $env := dict "RAMPART_LOG" $root.Values.log.filter "RAMPART_LOG_FORMAT" $root.Values.log.format }}
{{- if ne $admin 8080 }}{{ $_ := set $env "RAMPART_ADMIN_ADDRESS" (printf "0.0.0.0:%d" $admin) }}{{ end }}
{{- range $some := list .env .values.env }}
{{- range $key, $value := $some }}{{ $_ := set $env $key $value }}{{ end }}
{{- end }}
{{- if hasKey $env "RAMPART_IDENTITY" }}
{{- fail (printf "%s.env.RAMPART_IDENTITY is the name of each pod, by which one of them leads: remove it" .component) }}
{{- end }}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ $name }}
  namespace: {{ $root.Release.Namespace }}
  labels: {{- include "rampart.labels" . | nindent 4 }}
spec:
  replicas: {{ .values.replicas }}
  selector:
    matchLabels: {{- include "rampart.selector" .component | nindent 6 }}
  strategy:
    type: RollingUpdate
    {{- if .hostNetwork }}
    # A new pod needs the port of an old one.
    rollingUpdate: {maxSurge: 0, maxUnavailable: 1}
    {{- else }}
    rollingUpdate: {maxSurge: 1, maxUnavailable: 0}
    {{- end }}
  template:
    metadata:
      labels:
        {{- include "rampart.labels" . | nindent 8 }}
        {{- with $root.Values.podLabels }}{{ toYaml . | nindent 8 }}{{ end }}
      {{- with $root.Values.podAnnotations }}
      annotations: {{- toYaml . | nindent 8 }}
      {{- end }}
    spec:
      serviceAccountName: {{ $name }}
      automountServiceAccountToken: true
      enableServiceLinks: false
      {{- if .hostNetwork }}
      hostNetwork: true
      dnsPolicy: ClusterFirstWithHostNet
      {{- end }}
      {{- with $root.Values.priorityClassName }}
      priorityClassName: {{ . }}
      {{- end }}
      {{- with $root.Values.imagePullSecrets }}
      imagePullSecrets: {{- toYaml . | nindent 8 }}
      {{- end }}
      terminationGracePeriodSeconds: 30
      securityContext: {{- include "rampart.podSecurityContext" . | nindent 8 }}
      containers:
      - name: {{ .component }}
        image: {{ include "rampart.image" $root }}
        imagePullPolicy: {{ $root.Values.image.pullPolicy }}
        args: [{{ .component }}]
        env:
        # Of the pod's own: in leader election, in events, and of the verifier's report.
        - name: RAMPART_IDENTITY
          valueFrom: {fieldRef: {apiVersion: v1, fieldPath: metadata.name}}
        {{- range $key := $first }}
        {{- if hasKey $env $key }}
        - {name: {{ $key }}, value: {{ get $env $key | quote }}}
        {{- end }}
        {{- end }}
        {{- range $key, $value := $env }}
        {{- if not (has $key $first) }}
        - {name: {{ $key }}, value: {{ $value | quote }}}
        {{- end }}
        {{- end }}
        ports:
        - {name: admin, containerPort: {{ $admin }}, protocol: TCP}
        {{- range $port, $number := .ports }}
        - {name: {{ $port }}, containerPort: {{ $number }}, protocol: TCP}
        {{- end }}
        startupProbe:
          httpGet: {path: /healthz, port: admin}
          periodSeconds: 1
          failureThreshold: 60
        livenessProbe:
          httpGet: {path: /healthz, port: admin}
          periodSeconds: 10
        readinessProbe:
          httpGet: {path: /readyz, port: admin}
          periodSeconds: 2
        resources: {{- toYaml .values.resources | nindent 10 }}
        securityContext: {{- include "rampart.securityContext" . | nindent 10 }}
      {{- if $root.Values.topologySpread.enabled }}
      topologySpreadConstraints:
      {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
      - maxSkew: 1
        topologyKey: {{ . }}
        whenUnsatisfiable: ScheduleAnyway
        labelSelector:
          matchLabels: {{- include "rampart.selector" $.component | nindent 12 }}
        matchLabelKeys: [pod-template-hash]
      {{- end }}
      {{- end }}
      {{- with $root.Values.nodeSelector }}
      nodeSelector: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $root.Values.affinity }}
      affinity: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $root.Values.tolerations }}
      tolerations: {{- toYaml . | nindent 8 }}
      {{- end }}
{{- if $root.Values.podDisruptionBudget.enabled }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ $name }}
  namespace: {{ $root.Release.Namespace }}
  labels: {{- include "rampart.labels" . | nindent 4 }}
spec:
  maxUnavailable: 1
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels: {{- include "rampart.selector" .component | nindent 6 }}
{{- end }}
{{- end }}
