vcl 4.1;
backend b { .host = "{{.UpstreamHost}}"; .port = "{{.UpstreamPort}}"; }
{{- if ne .Mode "cache"}}
sub vcl_recv {
  if (req.http.upgrade ~ "(?i)websocket") { return (pipe); }
  return (pass);
}
sub vcl_pipe {
  if (req.http.upgrade) { set bereq.http.upgrade = req.http.upgrade; set bereq.http.connection = req.http.connection; }
}
{{- end}}
