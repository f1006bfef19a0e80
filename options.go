package kkv

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// DefaultServer is where a cache that runs beside the application listens.
const DefaultServer = "http://127.0.0.1:8091"

// Options say which cache to talk to. The zero value means the cache beside the application and its one topic.
type Options struct {
	// Servers are the base URLs of replicas, tried in turn. Default: the environment variable KKV_SERVER, a URL or
	// several separated by commas; else DefaultServer.
	Servers []string
	// Topic may be empty while the server has one topic only.
	Topic string
	// Prefix limits a Mirror to the keys that begin with it. A Client does not look at it.
	Prefix string
	// Token is sent as "Authorization: Bearer" where it is not empty.
	Token string
	// HTTPClient makes the requests. A Timeout in it would also cut every watch. Default: one of its own, without
	// an overall timeout, which follows no redirects.
	HTTPClient *http.Client
	// Logger hears of connections that fail at first, are lost and are regained, each once, and of callbacks that
	// panic. Default: silent.
	Logger *slog.Logger
}

// servers are the base URLs, without a slash at the end.
func (o *Options) servers() ([]string, error) {
	list := o.Servers
	from := "Options.Servers"
	if len(list) == 0 {
		if env := os.Getenv("KKV_SERVER"); env != "" {
			list, from = strings.Split(env, ","), "KKV_SERVER"
		} else {
			return []string{DefaultServer}, nil
		}
	}
	bases := make([]string, 0, len(list))
	for _, s := range list {
		base, err := baseURL(strings.TrimSpace(s))
		if err != nil {
			return nil, fmt.Errorf("kkv: %s: %w", from, err)
		}
		bases = append(bases, base)
	}
	return bases, nil
}

func baseURL(s string) (string, error) {
	u, err := url.Parse(s)
	if err != nil {
		var ue *url.Error // its text repeats the URL, which may hold a password
		if errors.As(err, &ue) {
			err = ue.Err
		}
		return "", fmt.Errorf("not a URL: %w; write it like %s", err, DefaultServer)
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https", u.Host == "":
		return "", fmt.Errorf("%q is not an http or https URL; write it like %s", u.Redacted(), DefaultServer)
	case u.RawQuery != "" || u.Fragment != "":
		return "", fmt.Errorf("%q has a query or fragment; give only scheme, host, port and path", u.Redacted())
	}
	return strings.TrimRight(u.String(), "/"), nil
}

// transport is the one used where no HTTPClient is given.
func transport() *http.Transport {
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment, // never for loopback addresses
		DialContext:           (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout:   5 * time.Second,
		ResponseHeaderTimeout: 75 * time.Second, // a server bounds every wait at 60 s
		IdleConnTimeout:       90 * time.Second,
		MaxIdleConnsPerHost:   64,
		DisableCompression:    true, // values are small and the cache is near
		ForceAttemptHTTP2:     true,
	}
}

// noRedirect: a cache redirects nothing, and a proxy that does so would turn one key into another.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
