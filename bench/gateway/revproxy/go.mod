module github.com/longpole/longpole/bench/gateway/revproxy

go 1.26.0
