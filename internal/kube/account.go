package kube

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// AccountDir is where Kubernetes mounts a pod's service account.
const AccountDir = "/var/run/secrets/kubernetes.io/serviceaccount"

// Account is how a pod reaches the API server.
type Account struct {
	Server    string // its base URL
	Dir       string // holds token, ca.crt and namespace
	Namespace string // of the pod; "" if Dir does not tell
}

// InPod finds the Account of the pod that this process runs in: the server in the environment that Kubernetes gives each container,
// the rest in dir. It fails outside a pod. A token or certificate that is missing is no error yet: it may come.
func InPod(env func(string) string, dir string) (Account, error) {
	host, port := env("KUBERNETES_SERVICE_HOST"), env("KUBERNETES_SERVICE_PORT")
	if host == "" || port == "" {
		return Account{}, errors.New("this is no Kubernetes pod: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set")
	}
	namespace, err := os.ReadFile(filepath.Join(dir, "namespace"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return Account{}, fmt.Errorf("the namespace of the service account: %w", err)
	}
	return Account{Server: "https://" + net.JoinHostPort(host, port), Dir: dir, Namespace: strings.TrimSpace(string(namespace))}, nil
}

// token is read for each request, for the kubelet replaces it before it runs out.
func (a Account) token() (string, error) { return a.read("token") }

// ca is the certificate, or several, that the server's one is to be signed with, as PEM.
func (a Account) ca() (string, error) { return a.read("ca.crt") }

func (a Account) read(name string) (string, error) {
	b, err := os.ReadFile(filepath.Join(a.Dir, name))
	switch b = bytes.TrimSpace(b); {
	case errors.Is(err, os.ErrNotExist):
		return "", fmt.Errorf("service account: %w: does the pod, or its service account, say automountServiceAccountToken: false?", err)
	case err != nil:
		return "", fmt.Errorf("service account: %w", err)
	case len(b) == 0:
		return "", fmt.Errorf("service account: %s is empty", filepath.Join(a.Dir, name))
	}
	return string(b), nil
}
