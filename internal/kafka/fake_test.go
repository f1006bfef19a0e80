package kafka

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
)

// fake is a broker on a virtual network, for use inside a synctest bubble.
type fake struct {
	t  *testing.T
	vn kfake.VirtualNetwork
	c  *kfake.Cluster
}

func newFake(t *testing.T, opts ...kfake.Opt) *fake {
	t.Helper()
	f := &fake{t: t}
	c, err := kfake.NewCluster(append([]kfake.Opt{
		kfake.NumBrokers(1), kfake.Ports(9092), kfake.ListenFn(f.vn.Listen),
	}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	f.c = c
	t.Cleanup(c.Close)
	return f
}

func (f *fake) config(props map[string]string) Config {
	return Config{Bootstrap: []string{"localhost:9092"}, Properties: props, Dial: f.vn.DialContext}
}

func (f *fake) producer(props map[string]string) *Producer {
	f.t.Helper()
	p, err := NewProducer(f.config(props))
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		p.Close(ctx)
	})
	return p
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func bubble(t *testing.T, f func(t *testing.T)) { synctest.Test(t, f) }
