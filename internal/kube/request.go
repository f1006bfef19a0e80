package kube

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// StatusError is an answer of the API server other than 200, or an ERROR event of a watch.
type StatusError struct {
	Code    int    `json:"code"`    // as of HTTP
	Message string `json:"message"` // of the server
	Hint    string `json:"-"`       // what to do about it, or ""
}

func (e *StatusError) Error() string {
	text := fmt.Sprintf("the API server answers %d: %s", e.Code, e.Message)
	if e.Hint != "" {
		text += "; " + e.Hint
	}
	return text
}

// path of the EndpointSlices of the namespace.
func (w *Watcher) path() string {
	return "/apis/discovery.k8s.io/v1/namespaces/" + w.o.Namespace + "/endpointslices"
}

// get sends one request. The caller closes the body of a 200; anything else is an error.
func (w *Watcher) get(ctx context.Context, query url.Values) (io.ReadCloser, error) {
	query.Set("labelSelector", "kubernetes.io/service-name="+w.o.Service)
	token, err := w.o.Account.token()
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.o.Account.Server+w.path()+"?"+query.Encode(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "kkv")
	res, err := w.transport.RoundTrip(req) // no redirects: the token is for this server alone
	if err != nil {
		return nil, err
	}
	if res.StatusCode == http.StatusOK {
		return res.Body, nil
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(res.Body, 16<<10))
	status := &StatusError{}
	if json.Unmarshal(body, status) != nil || status.Message == "" {
		status.Message = http.StatusText(res.StatusCode)
	}
	status.Code, status.Hint = res.StatusCode, w.hint(res.StatusCode)
	return nil, status
}

func (w *Watcher) hint(code int) string {
	switch code {
	case http.StatusForbidden:
		return fmt.Sprintf("give the pod's service account a Role in namespace %[1]q with apiGroups [discovery.k8s.io], resources [endpointslices], verbs [list, watch]: "+
			"kubectl -n %[1]s create role kkv-endpoints --verb=list,watch --resource=endpointslices.discovery.k8s.io, and a rolebinding to it", w.o.Namespace)
	case http.StatusUnauthorized:
		return "it does not take the token in " + w.o.Account.Dir
	case http.StatusNotFound:
		return "EndpointSlices came with Kubernetes 1.21"
	}
	return ""
}

// trust makes the transport anew if the file of certificates has changed.
func (w *Watcher) trust() error {
	if w.o.Transport != nil {
		w.transport = w.o.Transport
		return nil
	}
	ca, err := w.o.Account.ca()
	if err != nil || ca == w.trusted {
		return err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(ca)) {
		return errors.New("service account: ca.crt holds no certificate")
	}
	if w.closeIdle != nil {
		w.closeIdle()
	}
	t := &http.Transport{
		// No Proxy: the server's address is inside the cluster.
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		TLSClientConfig:       &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: requestTimeout,
		IdleConnTimeout:       90 * time.Second,
		ForceAttemptHTTP2:     true,
		// A connection that died without a word would else be found only when the watch is to end.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second},
	}
	w.trusted, w.transport, w.closeIdle = ca, t, t.CloseIdleConnections
	return nil
}
