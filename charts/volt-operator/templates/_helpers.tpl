{{- define "volt-operator.name" -}}
{{- if contains "volt-operator" .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-volt-operator" .Release.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "volt-operator.selector" -}}
app.kubernetes.io/name: volt-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "volt-operator.labels" -}}
{{ include "volt-operator.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "volt-operator.image" -}}
{{ .image.repository }}:{{ .image.tag | default .default }}
{{- end }}

{{- define "volt-operator.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "volt-operator.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
seccompProfile:
  type: RuntimeDefault
{{- end }}
