package node

import (
	"context"

	"github.com/kkv-project/kkv/internal/kube"
	"github.com/kkv-project/kkv/internal/webhook"
)

// Service is a Kubernetes service whose pods are webhook targets. It implements webhook.Targets.
type Service struct {
	Endpoints *kube.Watcher
	URL       func(ip string) string // of the webhook at a pod
}

// Run is webhook.Targets'. A pod that comes back with the same address is another target, and one that moves to another address too
// (GUARANTEES rule 17).
func (s *Service) Run(ctx context.Context, set func([]webhook.Target)) error {
	return s.Endpoints.Run(ctx, func(endpoints []kube.Endpoint) {
		list := make([]webhook.Target, len(endpoints))
		for i, e := range endpoints {
			url := s.URL(e.IP.String())
			list[i] = webhook.Target{ID: url, URL: url, Ready: e.Ready}
			if e.UID != "" {
				list[i].ID = e.Name + " " + url + " " + e.UID
			}
		}
		set(list)
	})
}
