module github.com/longpole/longpole/bench/gateway/adversity

go 1.26.0
