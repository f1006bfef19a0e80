package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// grammar is the command line.
type grammar struct {
	File    string   `name:"config" placeholder:"FILE" help:"A YAML file of settings: the flags' names without dashes in front, as kkv config prints them."`
	Version bool     `name:"version" help:"Show the version."`
	All     commands `embed:""`
	Config  struct {
		Docs bool     `name:"docs" hidden:"" help:"Print docs/config.md."`
		All  commands `embed:""`
	} `cmd:"" help:"Show the settings that a command (default: serve) would run with and where each comes from, as a --config file."`
}

// Command is what a command line, an environment and a file ask for.
type Command struct {
	// Name is "serve" or another command of [commands]; "config" (show Settings by Print); "docs" (show Docs), "version",
	// or "help", which Parse has printed already.
	Name string
	// Settings are those of the command; nil for docs, version and help.
	Settings Settings
	// Sources says where each setting came from, by flag name without dashes; it lacks settings that could not be read.
	Sources map[string]Source
	// Warnings are for the edge to log, once.
	Warnings []string
	// Faults is nil or, for config alone, what would keep the command from running; otherwise Parse returns it.
	Faults error

	of   string // the command that Settings belong to
	file string // path of --config
}

// UsageError is a command line, environment or file that cannot be run: exit code 2.
type UsageError struct {
	Command string // "kkv serve", or "kkv"
	Err     error  // Faults, or one line; nil if there was no command at all
	Hint    string // one line: what to do next
	Help    string // the whole help; set if there was no command at all
}

// Error is every fault, a line each, then the hint.
func (e *UsageError) Error() string {
	if e.Err == nil {
		return e.Help
	}
	var b strings.Builder
	for line := range strings.Lines(e.Err.Error()) {
		b.WriteString(e.Command + ": " + strings.TrimSuffix(line, "\n") + "\n")
	}
	return b.String() + e.Hint
}

// Unwrap gives Faults where it was settings that were wrong.
func (e *UsageError) Unwrap() error { return e.Err }

// Parse reads args (without the program's name) and env (as os.Environ) and the file that they name. Help goes to stdout.
// An error is a *UsageError. Calls are independent of one another.
func Parse(args []string, env []string, stdout io.Writer) (*Command, error) {
	in := &inputs{used: map[string]bool{}, flags: map[string]bool{}, env: envMap(env)}
	args, in.jvm = splitJVM(args)
	var g grammar
	var help bytes.Buffer
	parser := newParser(&g, &help)
	if in.oldStyle() {
		setDefault(parser.Model.Node, "serve")
	}
	// Step by step instead of kong's Parse, which would call Validate before the environment and the file are read.
	ctx, err := kong.Trace(parser, args)
	if err != nil {
		return nil, &UsageError{Command: "kkv", Err: err}
	}
	for _, p := range ctx.Path {
		if p.Flag != nil {
			in.flags[p.Flag.Name] = true
		}
	}
	if in.flags["help"] {
		return printHelp(ctx, &help, stdout)
	}
	if in.flags["version"] {
		return &Command{Name: "version"}, nil
	}
	if ctx.Error != nil {
		return nil, usageError(ctx, ctx.Error)
	}
	if ctx.Selected() == nil {
		_, err := printHelp(ctx, &help, &help)
		return nil, &UsageError{Command: "kkv", Err: err, Help: strings.TrimSpace(help.String())}
	}
	if err := ctx.Reset(); err != nil {
		return nil, usageError(ctx, err)
	}
	if _, err := ctx.Apply(); err != nil {
		return nil, usageError(ctx, err)
	}
	if g.Config.Docs {
		return &Command{Name: "docs"}, nil
	}
	return in.command(&g, ctx)
}

// printHelp prints the help of what was selected to w, by way of the buffer that kong writes to.
func printHelp(ctx *kong.Context, buffer *bytes.Buffer, w io.Writer) (*Command, error) {
	err := ctx.PrintUsage(false)
	if err == nil && w != buffer {
		_, err = buffer.WriteTo(w)
	}
	if err != nil {
		return nil, &UsageError{Command: "kkv", Err: fmt.Errorf("print the help: %w", err)}
	}
	return &Command{Name: "help"}, nil
}

// command resolves the settings of the command that was selected.
func (in *inputs) command(g *grammar, ctx *kong.Context) (*Command, error) {
	node := ctx.Selected()
	cmd := &Command{Name: node.Name, of: node.Name}
	if node.Parent.Name == "config" {
		cmd.Name = "config"
	}
	cmd.Settings = node.Target.Addr().Interface().(Settings)

	path := "kkv " + node.Name
	fail := func(err error) (*Command, error) {
		return nil, &UsageError{Command: path, Err: err, Hint: fmt.Sprintf("Run %q for all settings, %q for those in force.", path+" --help", "kkv config "+node.Name)}
	}
	cmd.file = g.File
	from := Source{FromArgs, "--config"}
	if cmd.file == "" {
		cmd.file, from = in.env[envName("config")], Source{FromEnv, envName("config")}
	}
	if cmd.file != "" {
		var err error
		if in.file, err = readFile(cmd.file); err != nil {
			return fail(Fault{Setting: "config", From: from, Problem: err.Error()})
		}
	}

	var faults Faults
	cmd.Sources, faults = in.apply(cmd.Settings)
	unread := faults
	wrong := asFaults(cmd.Settings.Validate())
	for _, f := range wrong {
		// A setting that could not be read stands at its default: one message about it is enough.
		if f.Setting == "" || !slices.ContainsFunc(unread, func(u Fault) bool { return u.Setting == f.Setting }) {
			f.From = cmd.Sources[f.Setting]
			faults = append(faults, f)
		}
	}
	if err := ctx.Validate(); err != nil && wrong == nil && cmd.Name != "config" {
		return nil, usageError(ctx, err) // kong's own rules: arguments that are missing
	}
	if _, ok := cmd.Settings.(*Serve); !ok && len(in.jvm) > 0 {
		faults = append(faults, Fault{Problem: "-D and -X arguments are for kkv serve alone", Fix: "remove " + in.jvmNames(in.jvm)})
	}
	cmd.Warnings = in.warnings()
	if len(faults) > 0 {
		if cmd.Name != "config" {
			return fail(faults)
		}
		_, cmd.Faults = fail(faults)
	}
	return cmd, nil
}

func asFaults(err error) Faults {
	var faults Faults
	if err != nil && !errors.As(err, &faults) {
		faults = Faults{{Problem: err.Error()}}
	}
	return faults
}

func (in *inputs) warnings() []string {
	warnings := unknownEnv(in.env)
	ignored := maps.Clone(in.jvm)
	maps.DeleteFunc(ignored, func(name, _ string) bool { return in.used[name] })
	if len(ignored) > 0 {
		warnings = append(warnings, "arguments for a Java virtual machine, ignored: "+in.jvmNames(ignored))
	}
	return warnings
}

func (in *inputs) jvmNames(args map[string]string) string {
	names := slices.Sorted(maps.Keys(args))
	for i, name := range names {
		if !strings.HasPrefix(name, "-X") {
			names[i] = "-D" + name
		}
	}
	return strings.Join(names, ", ")
}

// jvmArg is a system property or an option of the Java virtual machine, as deployments of the original carry them.
var jvmArg = regexp.MustCompile(`(?s)^-(?:D([^=]+)(?:=(.*))?|X.*)$`)

// splitJVM takes the arguments of a Java virtual machine out of args. As there, the last one of a name counts.
func splitJVM(args []string) (rest []string, jvm map[string]string) {
	jvm = map[string]string{}
	for i, arg := range args {
		if arg == "--" {
			return append(rest, args[i:]...), jvm
		}
		m := jvmArg.FindStringSubmatch(arg)
		switch {
		case m == nil:
			rest = append(rest, arg)
		case m[1] == "": // -Xmx64m
			jvm[arg] = ""
		default:
			jvm[m[1]] = m[2]
		}
	}
	return rest, jvm
}

// oldStyle tells whether this is a deployment of the original: it has arguments of a Java virtual machine, or a variable
// that named the topic there. Those start kkv without a command and mean serve.
func (in *inputs) oldStyle() bool {
	if len(in.jvm) > 0 {
		return true
	}
	for _, s := range settingsOf(new(Serve)) {
		if s.name == "topic" {
			return slices.ContainsFunc(s.compat, func(o oldName) bool { return in.env[o.name] != "" })
		}
	}
	return false
}

// envMap keeps the first of each name, as os.LookupEnv does.
func envMap(env []string) map[string]string {
	out := make(map[string]string, len(env))
	for _, e := range env {
		name, value, _ := strings.Cut(e, "=")
		if _, ok := out[name]; !ok && name != "" {
			out[name] = value
		}
	}
	return out
}

// positionLike is a position that begins as a flag does, which one topic in 64 has.
var positionLike = regexp.MustCompile(`^-[^-].*~`)

// newParser builds kong's parser. Its only failures are mistakes in our own tags, found by any test.
func newParser(g *grammar, help io.Writer) *kong.Kong {
	pop := func(ctx *kong.DecodeContext) (text string, err error) {
		if ctx.Scan.Peek().IsEOL() {
			return "", errors.New("needs a value")
		}
		if t := ctx.Scan.Peek(); ctx.Value.Tag.Has("hyphen") && t.Type == kong.UntypedToken && positionLike.MatchString(t.String()) {
			return ctx.Scan.Pop().String(), nil
		}
		return text, ctx.Scan.PopValueInto("a", &text)
	}
	scalar := kong.MapperFunc(func(ctx *kong.DecodeContext, target reflect.Value) error {
		text, err := pop(ctx)
		if err != nil {
			return err
		}
		return decodeScalar(text, target)
	})
	list := kong.MapperFunc(func(ctx *kong.DecodeContext, target reflect.Value) error {
		if ctx.Value.Flag == nil { // arguments of a command: all that are left
			for ctx.Scan.Peek().IsValue() {
				target.Set(reflect.Append(target, reflect.ValueOf(ctx.Scan.Pop().String())))
			}
			return nil
		}
		text, err := pop(ctx)
		if err != nil {
			return err
		}
		values := []string{text} // sep:"none"
		if sep := ctx.Value.Tag.Sep; sep != -1 {
			values = splitList(text, string(sep))
		}
		target.Set(reflect.AppendSlice(target, reflect.ValueOf(values)))
		return nil
	})
	parser, err := kong.New(g,
		kong.Name("kkv"),
		kong.Description("A never-stale, update-pushing key-value cache on Kafka."),
		kong.Writers(help, help),
		kong.ConfigureHelp(kong.HelpOptions{NoExpandSubcommands: true, Compact: true, WrapUpperBound: 110}),
		kong.ValueFormatter(func(v *kong.Value) string {
			if v.Flag == nil || v.Name == "help" || v.Name == "version" || v.Name == "docs" {
				return v.Help
			}
			return v.Help + " [" + envName(v.Name) + "]"
		}),
		kong.TypeMapper(durationType, scalar),
		kong.KindMapper(reflect.String, scalar),
		kong.KindMapper(reflect.Int, scalar),
		kong.KindMapper(reflect.Int16, scalar),
		kong.KindMapper(reflect.Int32, scalar),
		kong.KindMapper(reflect.Int64, scalar),
		kong.KindMapper(reflect.Slice, list),
	)
	if err != nil {
		panic(fmt.Sprintf("config: %v", err))
	}
	for _, node := range parser.Model.Children {
		if node.Name == "config" {
			setDefault(node, "serve")
		}
	}
	return parser
}

// setDefault makes a child the one that is meant where none is named, its flags included.
func setDefault(node *kong.Node, name string) {
	for _, child := range node.Children {
		if child.Name == name {
			child.Tag.Default = "withargs"
			node.DefaultCmd = child
		}
	}
}

var (
	unexpected  = regexp.MustCompile(`^unexpected argument (\S+?)(?:,|$)`)
	unknownFlag = regexp.MustCompile(`^unknown flag --(\S+?)(?:,|$)`)
)

// usageError says what kong found wrong, in our words where those are clearer.
func usageError(ctx *kong.Context, err error) error {
	node := ctx.Selected()
	out := &UsageError{Command: "kkv", Err: err, Hint: `Run "kkv --help" for the commands.`}
	if node != nil {
		out.Command = node.FullPath()
		out.Hint = fmt.Sprintf("Run %q for its flags.", out.Command+" --help")
	}
	// Where serve is only implied, an argument is a misspelt command.
	implied := node == nil || node.Name == "config" || !slices.Contains(ctx.Args, node.Name)
	if m := unexpected.FindStringSubmatch(err.Error()); m != nil && implied {
		meant := ""
		if near := nearest(m[1], commandNames()); near != "" {
			meant = fmt.Sprintf(", did you mean %q?", near)
		}
		out.Err = fmt.Errorf("unknown command %q%s (there are %s)", m[1], meant, strings.Join(commandNames(), ", "))
	}
	if m := unknownFlag.FindStringSubmatch(err.Error()); m != nil && node == nil {
		if with := commandsWith(m[1]); len(with) > 0 {
			out.Err = fmt.Errorf("--%s belongs to a command: put it behind %s, as in kkv %s --%s", m[1], orList(with), with[0], m[1])
		}
	}
	return out
}

// command is one that has settings.
type command struct {
	name, help string
	settings   Settings
}

// allCommands are the commands that have settings, with empty ones.
func allCommands() []command {
	v := reflect.ValueOf(new(commands)).Elem()
	out := make([]command, v.NumField())
	for i := range out {
		f := v.Type().Field(i)
		out[i] = command{name: strings.ToLower(f.Name), help: f.Tag.Get("help"), settings: v.Field(i).Addr().Interface().(Settings)}
	}
	return out
}

func commandNames() []string {
	var names []string
	for _, c := range allCommands() {
		names = append(names, c.name)
	}
	return append(names, "config")
}

// commandsWith are the commands that have a setting of that name.
func commandsWith(name string) (out []string) {
	for _, c := range allCommands() {
		if slices.ContainsFunc(settingsOf(c.settings), func(s setting) bool { return s.name == name }) {
			out = append(out, c.name)
		}
	}
	return out
}
