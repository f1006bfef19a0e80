package browser

import (
	"bytes"
	"context"
	"fmt"
	"image/png"
	"os"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/kkv-project/kkv/test/harness"
	"github.com/kkv-project/kkv/test/require"
)

// devPage opens the page of a `kkv dev` of its own.
func devPage(t *testing.T, args ...string) (context.Context, *harness.Dev) {
	t.Helper()
	require.Need(t, require.Chromium)
	d := harness.StartDev(t, "sidecar-demo", nil, args...)
	ctx := open(t)
	run(t, ctx, "open the page", chromedp.Navigate(d.Demo+"/"), is(`!!document.querySelector('.status.live')`), isAge(1, `text === '0 s'`), isAge(2, `text === '0 s'`))
	return ctx, d
}

// put puts a colour by the form, and waits until the answer is there.
func put(key, color string) step {
	return chromedp.Evaluate[chromedp.Void](fmt.Sprintf(`(async () => {
		const f = document.querySelector('form');
		f.elements.key.value = %q;
		f.elements.key.dispatchEvent(new Event('input'));
		f.elements.color.value = %q;
		const before = f.dataset.position;
		f.requestSubmit();
		while (f.dataset.position === before && !f.querySelector('.error').textContent) await new Promise((r) => setTimeout(r, 5));
	})()`, key, color), chromedp.EvalAwaitPromise)
}

func press(name string) step { return chromedp.Click(fmt.Sprintf(`[data-switch=%s]`, name)) }

func read(replica int, how string) step {
	return chromedp.Click(fmt.Sprintf(`[data-replica="%d"] [data-how=%s]`, replica-1, how))
}

// boxIs waits until the box of the key on one replica has the colour.
func boxIs(replica int, key, rgb string) step {
	return is(fmt.Sprintf(`(() => { const b = document.querySelector('[data-replica="%d"] [data-key="%s"]'); return b && getComputedStyle(b).backgroundColor === %q })()`, replica-1, key, rgb))
}

// isRead waits until what a read came to makes the expression about text true.
func isRead(replica int, how, expression string) step {
	return is(fmt.Sprintf(`(() => { const text = document.querySelector('[data-replica="%d"] [data-how=%s] + output').textContent; return %s })()`, replica-1, how, expression))
}

func isAge(replica int, expression string) step {
	return is(fmt.Sprintf(`(() => { const text = document.querySelector('[data-replica="%d"] .age b').textContent; return %s })()`, replica-1, expression))
}

// isSaid waits until what is said of a button makes the expression about text true.
func isSaid(name, expression string) step {
	return is(fmt.Sprintf(`(() => { const text = document.getElementById(%q).textContent; return %s })()`, name, expression))
}

// TestDevLag: a lagging replica shows the old colour beside the new one, and so does a local read of it; reads that ask for more
// wait, and show the new one.
func TestDevLag(t *testing.T) {
	ctx, _ := devPage(t)
	run(t, ctx, "both replicas show a put, and how long it took",
		put("A", "red"), boxIs(1, "A", red), boxIs(2, "A", red),
		is(`[...document.querySelectorAll('[data-key=A] .delay')].length === 2`),
		is(`[...document.querySelectorAll('[data-key=A] .delay')].every(d => / ms$/.test(d.textContent))`))
	run(t, ctx, "lag", press("lag"), isSaid("lag", `text.includes('late')`), is(`document.querySelector('[data-switch=lag]').ariaPressed === 'true'`))
	run(t, ctx, "the old colour beside the new",
		put("A", "green"), boxIs(1, "A", green), read(2, "local"), isRead(2, "local", `/^redin .* ms$/.test(text)`), boxIs(2, "A", red))
	run(t, ctx, "my write and fresh wait for the new one",
		read(2, "at-least"), read(2, "fresh"),
		isRead(2, "at-least", `/^waiting [12]\.\d s$/.test(text)`), isRead(2, "fresh", `/^waiting [12]\.\d s$/.test(text)`),
		isRead(2, "at-least", `/^greenwaited \d,?\d+ ms$/.test(text)`), isRead(2, "fresh", `/^greenwaited \d,?\d+ ms$/.test(text)`),
		boxIs(2, "A", green), isRead(2, "local", `text.startsWith('red')`))
	run(t, ctx, "the box tells how late it was", is(`/^3,\d+ ms$/.test(document.querySelector('[data-replica="1"] [data-key=A] .delay').textContent)`))
	run(t, ctx, "fresh on the first replica does not wait", read(1, "fresh"), isRead(1, "fresh", `/^greenwaited \d+(\.\d)? ms$/.test(text)`))
	run(t, ctx, "no lag any more", press("lag"), isSaid("lag", `text.includes('at once')`), put("A", "blue"), boxIs(2, "A", blue),
		is(`/^\d+(\.\d)? ms$/.test(document.querySelector('[data-replica="1"] [data-key=A] .delay').textContent)`))
}

// TestDevStopKafka: without Kafka the ages count up, reads go on, fresh and the form say why they cannot, and all is well again
// with it.
func TestDevStopKafka(t *testing.T) {
	ctx, d := devPage(t)
	run(t, ctx, "a first put", put("A", "red"), boxIs(2, "A", red))
	run(t, ctx, "stop", press("kafka"), isSaid("kafka", `text.includes('stopped')`), is(`document.querySelector('[data-switch=kafka]').textContent === 'Start Kafka'`))
	run(t, ctx, "ages count up", isAge(1, `parseFloat(text) > 2`), isAge(2, `parseFloat(text) > 2`))
	run(t, ctx, "local reads go on", read(1, "local"), isRead(1, "local", `text.startsWith('red')`), boxIs(1, "A", red))
	run(t, ctx, "fresh says why it cannot", read(2, "fresh"), isRead(2, "fresh", `text.startsWith('504: the leaders could not be asked')`))
	run(t, ctx, "the form says why it cannot", put("A", "green"), is(`document.querySelector('form .error').textContent.includes('written')`), boxIs(1, "A", red))
	run(t, ctx, "start again", press("kafka"), isSaid("kafka", `text === 'Kafka runs.'`), isAge(1, `text === '0 s'`), isAge(2, `text === '0 s'`),
		read(2, "fresh"), isRead(2, "fresh", `text.includes('waited')`), put("A", "blue"), boxIs(1, "A", blue), boxIs(2, "A", blue))
	run(t, ctx, "stop once more", press("kafka"), isSaid("kafka", `text.includes('stopped')`))
	began := time.Now()
	d.Signal(os.Interrupt)
	if code := d.WaitEnd(t, 5*time.Second); code != 0 {
		t.Errorf("ended with %d:\n%s", code, d.Output())
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("kkv dev took %v to end without Kafka", took)
	}
}

// TestDevLoad: a thousand writes a second, all of them seen on both replicas, one of which lags for a while; its keys are gone
// afterwards.
func TestDevLoad(t *testing.T) {
	ctx, _ := devPage(t)
	const counts = `(text.match(/^sent ([\d,]+) · missed ([\d,]+)\nseen by 1: ([\d,]+), by 2: ([\d,]+)$/) || []).slice(1).map(n => +n.replaceAll(',', ''))`
	run(t, ctx, "start", press("load"), isSaid("load", counts+`[0] > 1000`), is(`document.querySelectorAll('.tile').length === 100`))
	run(t, ctx, "the second replica is behind, and misses nothing", press("lag"),
		isSaid("load", `(([sent, missed, one, two]) => sent - two > 300 && sent - one < 300 && missed === 0)(`+counts+`)`),
		put("A", "red"), is(`/^3,[0-4]\d\d ms$/.test(document.querySelector('[data-replica="1"] [data-key=A] .delay')?.textContent)`),
		press("lag"), isSaid("load", `(([sent, missed, one, two]) => sent > 3000 && sent - two < 300 && missed === 0)(`+counts+`)`))
	run(t, ctx, "end", press("load"), is(`document.querySelector('[data-switch=load]').ariaPressed === 'false'`),
		is(`document.querySelectorAll('.tile').length === 0`),
		isSaid("load", `(([sent, missed, one, two]) => sent > 3000 && sent === one && sent === two && missed === 0)(`+counts+`)`))
}

// TestDevOwnKafka: what is not there cannot be pressed, and the page says why; what is there can be without a mouse.
func TestDevOwnKafka(t *testing.T) {
	require.Need(t, require.Chromium)
	bootstrap := harness.StartDev(t, "another", nil).Kafka
	ctx, _ := devPage(t, "--kafka-bootstrap", bootstrap)
	run(t, ctx, "stop is disabled", is(`document.querySelector('[data-switch=kafka]').disabled`), isSaid("kafka", `text.includes('--kafka-bootstrap')`))
	run(t, ctx, "lag is not, by the keyboard", chromedp.SendKeys(`[data-switch=lag]`, "\r"), isSaid("lag", `text.includes('late')`))
}

// TestDevPicture: nothing sticks out of the page, on a narrow screen either. With KKV_TEST_PICTURE=FILE it takes README's picture.
func TestDevPicture(t *testing.T) {
	ctx, d := devPage(t)
	run(t, ctx, "a scene", put("B", "royalblue"), put("A", "tomato"), boxIs(2, "A", "rgb(255, 99, 71)"), press("lag"), isSaid("lag", `text.includes('late')`),
		put("A", "seagreen"), read(1, "fresh"), read(1, "local"), read(1, "at-least"), read(2, "local"), read(2, "at-least"), read(2, "fresh"),
		isRead(2, "fresh", `text.includes('waited')`), isRead(2, "at-least", `text.includes('waited')`),
		press("load"), isSaid("load", `/^sent [4-9],/.test(text)`))
	harness.DoBody(t, d.Gateway, "POST", "/topics/sidecar-demo/messages?key=B", []byte(`{"id":"B","color":"orange"}`), "content-type: application/json")
	run(t, ctx, "a change behind the page's back", boxIs(1, "B", orange), is(`document.getAnimations().length === 0`), script(`document.activeElement.blur()`))
	for _, width := range []int64{400, 1000} {
		run(t, ctx, "resize", chromedp.EmulateViewport(width, 735),
			is(`document.documentElement.scrollWidth <= innerWidth`),
			is(`[...document.querySelectorAll('body *')].every(e => { const r = e.getBoundingClientRect(); return r.width === 0 || r.left >= -1 && r.right <= innerWidth + 1 })`))
	}
	if file := os.Getenv("KKV_TEST_PICTURE"); file != "" {
		takePicture(t, ctx, file)
	}
}

// takePicture writes what the page looks like, as small as it goes.
func takePicture(t *testing.T, ctx context.Context, file string) {
	t.Helper()
	shot, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		t.Fatal(err)
	}
	picture, err := png.Decode(bytes.NewReader(shot))
	if err != nil {
		t.Fatal(err)
	}
	var small bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&small, picture); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, small.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}
