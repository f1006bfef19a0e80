// Command bare is the bound for GET over Go's net/http: a handler that cuts the key off the path, looks it up in a
// Go map, and sends the value with as many headers and header bytes as kkv does, all of them made beforehand. With
// -streams it is the bound for watches: every GET is a stream, to which the bodies of POSTs go.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"strings"

	"github.com/kkv-project/kkv/bench/dataset"
)

func main() {
	keys := flag.Int("keys", 1_000_000, "keys, as of the topic 1m")
	prefix := flag.String("prefix", "/", "what the path has before the key")
	headers := flag.String("headers", "{}", "headers to send, as a JSON object of strings")
	streams := flag.Bool("streams", false, "send streams of server-sent events")
	flag.Parse()
	if *streams {
		serve(newStreams())
		return
	}

	t := dataset.Topics[0]
	t.Keys = *keys
	m := make(map[string][]byte, t.Keys)
	for i := range t.Keys {
		m[string(dataset.AppendKey(nil, i))] = t.AppendValue(nil, i, 0)
	}
	var names map[string]string
	if err := json.Unmarshal([]byte(*headers), &names); err != nil {
		log.Fatal(err)
	}
	type header struct {
		name  string
		value []string
	}
	var send []header
	for name, value := range names {
		send = append(send, header{http.CanonicalHeaderKey(name), []string{value}})
	}

	serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		value, ok := m[strings.TrimPrefix(r.URL.Path, *prefix)]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		h := w.Header()
		for i := range send {
			h[send[i].name] = send[i].value
		}
		_, _ = w.Write(value) // the client is gone if this fails
	}))
}

func serve(h http.Handler) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("ready address=%s\n", l.Addr())
	log.Fatal(http.Serve(l, h))
}
