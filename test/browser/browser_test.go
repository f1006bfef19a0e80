// Package browser looks at the demo application as a person does: in Chromium.
package browser

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/kkv-project/kkv/test/harness"
	"github.com/kkv-project/kkv/test/port"
	"github.com/kkv-project/kkv/test/require"
)

func TestMain(m *testing.M) { harness.Main(m) }

// open starts a headless Chromium with a profile of its own and returns the context that chromedp drives it by.
func open(t *testing.T) context.Context {
	t.Helper()
	allocator, cancelAllocator := chromedp.NewExecAllocator(t.Context(),
		chromedp.ExecPath(require.Path(require.Chromium)),
		chromedp.UserDataDir(t.TempDir()),
		chromedp.Headless,
		chromedp.NoSandbox, // CI runs as root, where the sandbox refuses to start; all that is loaded is our own page
		chromedp.DisableGPU,
		chromedp.NoFirstRun,
		// Without these a browser calls home at every start.
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true),
		// /dev/shm is too small in many containers.
		chromedp.Flag("disable-dev-shm-usage", true),
		chromedp.WindowSize(1000, 700),
		chromedp.WSURLReadTimeout(60*time.Second),
	)
	ctx, cancel := chromedp.NewContext(allocator)
	t.Cleanup(func() {
		if t.Failed() {
			screenshot(t, ctx)
		}
		// Waits for the browser's end, so that nothing writes into the profile while it is removed.
		_ = chromedp.Cancel(ctx)
		cancel()
		cancelAllocator()
	})
	return ctx
}

// screenshot keeps what the page looked like when a test failed.
func screenshot(t *testing.T, ctx context.Context) {
	dir := os.Getenv("KKV_TEST_SCREENSHOTS")
	if dir == "" {
		return
	}
	png, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		t.Logf("screenshot: %v", err)
		return
	}
	file := filepath.Join(dir, strings.ReplaceAll(t.Name(), "/", "_")+".png")
	if err := os.WriteFile(file, png, 0o600); err == nil {
		t.Logf("screenshot: %s", file)
	}
}

// A step is an action of chromedp that gives nothing back.
type step = chromedp.Action[chromedp.Void]

// run does the steps in turn. It fails the test with what the page then looks like.
func run(t *testing.T, ctx context.Context, what string, steps ...step) {
	t.Helper()
	if err := chromedp.Do(ctx, steps...); err != nil {
		page, _ := chromedp.Run(ctx, chromedp.Evaluate[string](`document.body.outerHTML`))
		t.Fatalf("%s: %v; the page:\n%s", what, err, page)
	}
}

// is waits until the expression is true.
func is(expression string) step {
	return func(ctx context.Context, target *chromedp.Target) (chromedp.Void, error) {
		void, err := chromedp.Poll[chromedp.Void](expression,
			chromedp.WithPollingInterval(20*time.Millisecond), chromedp.WithPollingTimeout(20*time.Second))(ctx, target)
		if err != nil {
			err = fmt.Errorf("%w: not true in time: %s", err, expression)
		}
		return void, err
	}
}

// colour waits until the box of the key has the colour.
func colour(key, rgb string) step {
	return is(fmt.Sprintf(`[...document.querySelectorAll('[data-key]')].some(b => b.dataset.key === %q && getComputedStyle(b).backgroundColor === %q)`, key, rgb))
}

// script runs the JavaScript and ignores what it gives.
func script(text string) step { return chromedp.Evaluate[chromedp.Void](text) }

// The colours as getComputedStyle gives them.
const (
	red    = "rgb(255, 0, 0)"
	green  = "rgb(0, 128, 0)"
	blue   = "rgb(0, 0, 255)"
	orange = "rgb(255, 165, 0)"
)

// TestChromium: the page shows each key as a box, live.
func TestChromium(t *testing.T) {
	require.Need(t, require.Chromium)
	d := harness.StartDev(t, "sidecar-demo", nil)
	put := func(key, value string) {
		t.Helper()
		target := "/topics/sidecar-demo/messages?key=" + key
		res := harness.DoBody(t, d.Gateway, "POST", target, []byte(value), "content-type: application/json")
		if res.Status != 200 {
			t.Fatalf("POST %s: %s", target, res)
		}
	}
	ctx := open(t)

	// An empty page, then the two produces of the mission's script.
	run(t, ctx, "open the page", chromedp.Navigate(d.Demo+"/"), chromedp.WaitReady(`form input[name=key]`))
	// The mark is gone if anything loads the page anew.
	run(t, ctx, "mark the page", script(`window.stillTheSamePage = true`))
	put("A", `{ "id": "A", "color": "red" }`)
	put("B", `{ "id": "B", "color": "blue" }`)
	run(t, ctx, "A turns red", colour("A", red))
	run(t, ctx, "B turns blue", colour("B", blue))

	put("A", `{ "id": "A", "color": "green" }`)
	run(t, ctx, "A turns green", colour("A", green), is(`window.stillTheSamePage === true`))

	// The form.
	run(t, ctx, "put by the form",
		chromedp.SetValue(`input[name=key]`, "A"),
		// Whatever kind of input the colour is, a hex value fits.
		chromedp.SetValue(`input[name=color]`, "#ffa500"),
		chromedp.Click(`button[type=submit]`),
		colour("A", orange), is(`window.stillTheSamePage === true`))
	run(t, ctx, "put a new key by the form",
		chromedp.SetValue(`input[name=key]`, "new & <b>"),
		chromedp.SetValue(`input[name=color]`, "#ff0000"),
		chromedp.Click(`button[type=submit]`),
		colour("new & <b>", red),
		is(`window.stillTheSamePage === true`))

	// A delete takes the box away, and a value that is no colour does no harm.
	res := harness.Do(t, d.Gateway, "DELETE", "/topics/sidecar-demo/messages?key=B")
	if res.Status != 200 {
		t.Fatalf("DELETE B: %s", res)
	}
	put("odd", `not json, "><script>window.stillTheSamePage = false</script>`)
	put("evil", `{"id":"evil","color":"red;}\"><script>window.stillTheSamePage = false</script>"}`)
	run(t, ctx, "B goes", is(`!document.querySelector('[data-key="B"]')`), is(`!!document.querySelector('[data-key="evil"]')`),
		is(`window.stillTheSamePage === true`))

	// A page that is opened later shows the same.
	run(t, ctx, "reload", chromedp.Reload(), colour("A", orange))

	// The page of one id.
	run(t, ctx, "the page of A", chromedp.Navigate(d.Demo+"/A"),
		is(`document.body.innerText.includes('Hello Kafka!')`),
		is(fmt.Sprintf(`[document.documentElement, ...document.querySelectorAll('*')].some(e => getComputedStyle(e).backgroundColor === %q)`, orange)))
}

// TestChromiumReconnects: kkv dev stops and starts again on the same addresses and data; the open page goes on by itself.
func TestChromiumReconnects(t *testing.T) {
	require.Need(t, require.Chromium)
	// The same addresses twice: they must not be of those that the system gives to connections.
	args := []string{"--data-dir", t.TempDir()}
	for i, p := range port.Free(t, 2) {
		args = append(args, []string{"--demo-listen", "--cache-listen"}[i], fmt.Sprintf("127.0.0.1:%d", p))
	}
	d := harness.StartDev(t, "sidecar-demo", nil, args...)
	ctx := open(t)
	harness.DoBody(t, d.Gateway, "POST", "/topics/sidecar-demo/messages?key=A&sync", []byte(`{"id":"A","color":"red"}`))
	run(t, ctx, "open", chromedp.Navigate(d.Demo+"/"), colour("A", red), script(`window.stillTheSamePage = true`))
	d.Kill()
	again := harness.StartDev(t, "sidecar-demo", nil, args...)
	harness.DoBody(t, again.Gateway, "POST", "/topics/sidecar-demo/messages?key=A&sync", []byte(`{"id":"A","color":"green"}`))
	run(t, ctx, "A turns green", colour("A", green), is(`window.stillTheSamePage === true`))
}
