package demo

import (
	"encoding/base64"
	"encoding/json"
	"html/template"
	"net/url"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/kkv-project/kkv"
)

// box is how a page shows one key; as JSON, it is what /events sends.
type box struct {
	ID      string `json:"id"`    // the key's bytes, base64url: equal for equal keys only
	Key     string `json:"key"`   // as text; bytes that are not UTF-8 are replaced
	Href    string `json:"href"`  // the key's page
	Color   string `json:"color"` // a safe CSS colour, "" for none
	Text    string `json:"text"`  // the colour as the value names it, or the value's beginning
	Offset  int64  `json:"offset"`
	Replica int    `json:"replica"`         // from 0
	Delay   string `json:"delay,omitempty"` // from the acknowledgement until this replica showed it; "" where that is not known
	Tile    bool   `json:"tile,omitempty"`  // a key of the load, shown small
}

// CSS is the box's background. Only colours that safeColor lets pass, and a constant, become CSS.
func (b box) CSS() template.CSS {
	if b.Color == "" {
		return neutral
	}
	return template.CSS(b.Color)
}

// neutral is the background of a value that names no colour. The page's script has it, too.
const neutral = "var(--neutral)"

func boxOf(e kkv.Entry) box {
	b := box{
		ID:     base64.RawURLEncoding.EncodeToString([]byte(e.Key)),
		Key:    strings.ToValidUTF8(e.Key, "\uFFFD"),
		Href:   href(e.Key),
		Offset: e.Offset,
		Tile:   isLoad(e.Key),
	}
	var v struct{ Color string }
	if json.Unmarshal(e.Value, &v) == nil && safeColor(v.Color) {
		b.Color, b.Text = v.Color, v.Color
		return b
	}
	b.Text = beginning(e.Value)
	return b
}

// maxText is how many bytes of a value that names no colour are shown.
const maxText = 160

func beginning(v []byte) string {
	if len(v) <= maxText {
		return strings.ToValidUTF8(string(v), "\uFFFD")
	}
	v = v[:maxText]
	for len(v) > 0 && !utf8.RuneStart(v[len(v)-1]) {
		v = v[:len(v)-1]
	}
	return strings.ToValidUTF8(string(v[:len(v)-1]), "\uFFFD") + "…"
}

// valueOf is the record that the form puts.
func valueOf(key, color string) []byte {
	id, _ := json.Marshal(key) // strings always marshal
	c, _ := json.Marshal(color)
	return []byte(`{ "id": ` + string(id) + `, "color": ` + string(c) + ` }`)
}

// href is the path of a key's page. Keys that are paths of the application itself, and "." and "..", which browsers
// take for steps in a path even when they are percent-encoded, go into the query.
func href(key string) string {
	switch key {
	case "", ".", "..", "events", "healthz", "favicon.ico":
		return "/?id=" + url.QueryEscape(key)
	}
	if strings.HasPrefix(key, assetPath[1:]) {
		return "/?id=" + url.QueryEscape(key)
	}
	return "/" + url.PathEscape(key)
}

var colorFunction = regexp.MustCompile(`^(?:rgb|hsl)a?\( *[+-]?[0-9.]{1,9}(?:%|deg)?(?: *[ ,/] *[+-]?[0-9.]{1,9}%?){2,3} *\)$`)
var colorHex = regexp.MustCompile(`^#(?:[0-9a-f]{3,4}|[0-9a-f]{6}|[0-9a-f]{8})$`)

// safeColor reports whether s is a colour and nothing else: a name of CSS Color 4, #hex, rgb() or hsl().
func safeColor(s string) bool {
	if len(s) > 64 {
		return false
	}
	s = strings.ToLower(s)
	return colorNames[s] || colorHex.MatchString(s) || colorFunction.MatchString(s)
}

// colorNames are those of CSS Color Module Level 4, section 6.1, and transparent.
var colorNames = func() map[string]bool {
	m := make(map[string]bool)
	for _, name := range strings.Fields(`aliceblue antiquewhite aqua aquamarine azure beige bisque black blanchedalmond
		blue blueviolet brown burlywood cadetblue chartreuse chocolate coral cornflowerblue cornsilk crimson cyan darkblue
		darkcyan darkgoldenrod darkgray darkgreen darkgrey darkkhaki darkmagenta darkolivegreen darkorange darkorchid darkred
		darksalmon darkseagreen darkslateblue darkslategray darkslategrey darkturquoise darkviolet deeppink deepskyblue
		dimgray dimgrey dodgerblue firebrick floralwhite forestgreen fuchsia gainsboro ghostwhite gold goldenrod gray green
		greenyellow grey honeydew hotpink indianred indigo ivory khaki lavender lavenderblush lawngreen lemonchiffon
		lightblue lightcoral lightcyan lightgoldenrodyellow lightgray lightgreen lightgrey lightpink lightsalmon
		lightseagreen lightskyblue lightslategray lightslategrey lightsteelblue lightyellow lime limegreen linen magenta
		maroon mediumaquamarine mediumblue mediumorchid mediumpurple mediumseagreen mediumslateblue mediumspringgreen
		mediumturquoise mediumvioletred midnightblue mintcream mistyrose moccasin navajowhite navy oldlace olive olivedrab
		orange orangered orchid palegoldenrod palegreen paleturquoise palevioletred papayawhip peachpuff peru pink plum
		powderblue purple rebeccapurple red rosybrown royalblue saddlebrown salmon sandybrown seagreen seashell sienna silver
		skyblue slateblue slategray slategrey snow springgreen steelblue tan teal thistle tomato turquoise violet wheat white
		whitesmoke yellow yellowgreen transparent`) {
		m[name] = true
	}
	return m
}()
