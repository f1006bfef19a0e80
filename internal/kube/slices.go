package kube

import (
	"cmp"
	"net/netip"
	"slices"
)

// Endpoint is one pod behind a service, or an address that somebody wrote by hand.
type Endpoint struct {
	UID   string // of the pod; "" if the endpoint refers to none
	Name  string // of the pod; "" likewise
	IP    netip.Addr
	Ready bool // takes traffic: its readiness probe passes, and it is not being shut down
}

// What we read of the API's objects (discovery.k8s.io/v1), by its names.
type (
	metadata struct {
		Name            string `json:"name"`
		ResourceVersion string `json:"resourceVersion"`
	}
	endpointSlice struct {
		Metadata    metadata   `json:"metadata"`
		AddressType string     `json:"addressType"` // IPv4, IPv6 or FQDN
		Endpoints   []endpoint `json:"endpoints"`
	}
	endpoint struct {
		Addresses  []string `json:"addresses"`
		Conditions struct {
			Ready       *bool `json:"ready"` // nil: unknown, to be taken as true
			Terminating *bool `json:"terminating"`
		} `json:"conditions"`
		TargetRef struct {
			Name string `json:"name"`
			UID  string `json:"uid"`
		} `json:"targetRef"`
	}
)

// ready: a pod that ends counts as not ready even where the service publishes addresses that are not (publishNotReadyAddresses).
func (e *endpoint) ready() bool {
	return (e.Conditions.Ready == nil || *e.Conditions.Ready) && (e.Conditions.Terminating == nil || !*e.Conditions.Terminating)
}

// merge makes one list, in a fixed order, of a service's slices. An endpoint that stands in two of them, as it does while slices are
// balanced, counts once, ready if either says so. A pod with addresses of both families counts once too: at the address that it has in
// before, otherwise at the IPv4 one, where every server listens.
func merge(bySlice map[string]*endpointSlice, before []Endpoint) []Endpoint {
	type key struct {
		uid string
		ip  netip.Addr
	}
	found := map[key]Endpoint{}
	for _, s := range bySlice {
		if s.AddressType == "FQDN" {
			continue
		}
		for i := range s.Endpoints {
			e := &s.Endpoints[i]
			if len(e.Addresses) == 0 {
				continue
			}
			// The API gives no meaning to addresses beyond the first.
			ip, err := netip.ParseAddr(e.Addresses[0])
			if err != nil {
				continue
			}
			k := key{e.TargetRef.UID, ip.Unmap()}
			found[k] = Endpoint{UID: k.uid, Name: e.TargetRef.Name, IP: k.ip, Ready: e.ready() || found[k].Ready}
		}
	}
	kept := map[string]netip.Addr{}
	for _, e := range before {
		if _, still := found[key{e.UID, e.IP}]; still && e.UID != "" {
			kept[e.UID] = e.IP
		}
	}
	all := make([]Endpoint, 0, len(found))
	for _, e := range found {
		if ip, ok := kept[e.UID]; !ok || ip == e.IP {
			all = append(all, e)
		}
	}
	slices.SortFunc(all, func(a, b Endpoint) int { return cmp.Or(cmp.Compare(a.UID, b.UID), a.IP.Compare(b.IP)) })
	return slices.CompactFunc(all, func(a, b Endpoint) bool { return a.UID != "" && a.UID == b.UID })
}
