// Package config turns flags, environment variables, a YAML file and defaults into the settings of one kkv command.
//
// There is one place per setting: a struct field with its tags. From it come the flag, the environment name, the key of
// the file, the help, docs/config.md and the checks. To add a setting, add a field; to add a command, add a struct with a
// line in [commands]. The tags are:
//
//	name        flag name, and key of the file; KKV_<NAME> in the environment
//	help        one sentence; default, hidden, placeholder, sep: as kong has them
//	compat      names under which Yolean kafka-keyvalue 1.x and 2.x took it (serve only), comma-separated. "NAME=port" is a bare
//	            port, "NAME=duration" a duration as Quarkus reads it, "name*" also name1, name2, …
//	check       rules that Validate applies, by name (see checks in validate.go), comma-separated
//	oneof       the permitted values, comma-separated
//	need        the setting may not be empty; the tag says what to set it to
//	with        environment names are read only while the setting named here is set
//	secret      never printed
//	hyphen      takes a position, which may begin with a hyphen
//
// Precedence: flag > environment > file > default. Two names of one setting within one level must agree.
// Nothing here logs, touches the network or keeps state; all of it may be called concurrently.
package config

import (
	"io"
	"log/slog"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Settings are what one command runs with: a pointer to one of the structs in [commands].
type Settings interface {
	// Validate returns nil or Faults: everything that is wrong with the values, each with its fix.
	Validate() error
	// Logger writes to w in the format and from the level that the settings ask for.
	Logger(w io.Writer) *slog.Logger
}

// commands are the commands that have settings, in the order of the help. `kkv config` has the same ones below it.
type commands struct {
	Dev     Dev     `cmd:"" help:"Everything in one process, to try kkv and to develop with: a broker (embedded, unless --kafka-bootstrap names one), gateway, cache and demo application on loopback."`
	Serve   Serve   `cmd:"" help:"The cache: keep a topic in memory, answer GET by key, push every change."`
	Gateway Gateway `cmd:"" help:"Produce over HTTP, with the routes of kafka-pixy."`
	Demo    Demo    `cmd:"" help:"The demo application: every key as a coloured box that updates live."`
	Get     Get     `cmd:"" help:"Print the value of a key."`
	Ls      Ls      `cmd:"" help:"List keys in their order, all at one position."`
	Put     Put     `cmd:"" help:"Write a value, and print the position from which on it can be read; the cache must be writable."`
	Del     Del     `cmd:"" help:"Delete keys, and print the position from which on they are gone; the cache must be writable."`
	Watch   Watch   `cmd:"" help:"Print the state of the keys, and then every change as it is applied, for as long as somebody reads."`
	Status  Status  `cmd:"" help:"Show how far caches are: stage, keys, bytes; and of each partition position, end and age."`
}

// Kafka says how to reach Kafka. The properties have the names that Java clients use; package kafka reads them.
type Kafka struct {
	Bootstrap  []string `name:"kafka-bootstrap" compat:"KAFKA_BOOTSTRAP,kafka_bootstrap" check:"broker" placeholder:"HOST:PORT" help:"Kafka brokers to start from, comma-separated."`
	ConfigFile string   `name:"kafka-config" placeholder:"FILE" help:"A client.properties file with Java's names, for TLS and SASL."`
	Property   []string `name:"kafka-property" sep:"none" check:"property" placeholder:"NAME=VALUE" help:"One property, as in --kafka-config and stronger than it; repeatable (in the environment: one a line)."`
}

// Log says how to log; the log goes to standard error.
type Log struct {
	LogFormat string `name:"log-format" default:"text" oneof:"text,json" help:"Log lines as text or json."`
	LogLevel  string `name:"log-level" default:"info" oneof:"debug,info,warn,error" help:"Log from this level up: debug, info, warn or error."`
}

// Serve is the cache on a topic of any Kafka. It alone has the names of kafka-keyvalue 1.x and 2.x.
type Serve struct {
	Kafka

	Topic                  string `name:"topic" compat:"KAFKA_INCOMING_TOPIC,topic" check:"topic" need:"the topic to serve" help:"The topic to serve."`
	Listen                 string `name:"listen" default:":8080" compat:"QUARKUS_HTTP_PORT=port" check:"listen" need:"an address such as :8080" help:"Address of the cache; port 0 picks a free one."`
	ManagementListen       string `name:"management-listen" check:"listen" placeholder:"HOST:PORT" help:"Address for pprof, shutdown and the effective settings; off when empty. Keep it off the network."`
	CreateTopic            bool   `name:"create-topic" help:"Create the topic, compacted, if it does not exist; otherwise wait for it."`
	CreateTopicPartitions  int32  `name:"create-topic-partitions" default:"3" check:"positive" help:"Partitions of a topic that --create-topic creates."`
	CreateTopicReplication int16  `name:"create-topic-replication" default:"-1" check:"replication" help:"Replicas of each partition that --create-topic creates; -1 leaves it to the broker."`
	Writable               bool   `name:"writable" help:"Allow PUT and DELETE on keys; otherwise the cache is read-only."`
	Isolation              string `name:"isolation" default:"read_committed" oneof:"read_committed,read_uncommitted" help:"read_committed hides records of open and aborted transactions; read_uncommitted shows them."`

	Consistency string `name:"consistency" default:"local" oneof:"local,fresh" help:"How fresh a read is that does not say: local is what this replica holds now; fresh sees every write acknowledged before the request, for clients that cannot be changed."`

	MaxBytes       string        `name:"max-bytes" default:"auto" check:"bytes" placeholder:"SIZE" help:"Memory that the records may take, such as 500MB or 2GiB; beyond it partitions stand still until there is room, nothing is evicted. auto: three quarters of what the container's limit leaves beyond 32 MiB; 0: no limit."`
	UnreadyAtLimit bool          `name:"unready-at-limit" help:"Be unready while --max-bytes holds partitions back."`
	WhenKafkaAway  string        `name:"when-kafka-away" default:"serve" oneof:"serve,unready" help:"serve stays ready while Kafka cannot be reached, and answers from memory; unready does so too but says to be unready, for where another replica may still reach it. A fresh read is refused in either case."`
	ListTimeout    time.Duration `name:"list-timeout" default:"1m" check:"notnegative" help:"Cut off a list that takes longer, for it holds memory meanwhile."`
	MaxWatchers    int           `name:"max-watchers" default:"0" check:"notnegative" help:"Watches open at a time; one more is answered 503, and a long poll (Prefer: wait) at once. 0: no bound."`
	Drain          time.Duration `name:"drain" default:"5s" check:"notnegative" help:"When told to end, be unready and go on answering for this long, so that callers are sent elsewhere first."`

	OnUpdateAfterOffset string   `name:"on-update-after-offset" default:"latest" compat:"ONUPDATE_AFTER_OFFSET,kafka_offset_reset" oneof:"latest,earliest" help:"latest pushes what changes once ready; earliest also pushes what is read while loading."`
	OnUpdatePath        string   `name:"on-update-path" default:"/kafka-keyvalue/v1/updates" compat:"ON_UPDATE_PATH" check:"path" help:"Path of the webhook on --target-static-host and --target-service-name."`
	WebhookTarget       []string `name:"webhook-target" compat:"target*" check:"url" placeholder:"URL" help:"URL to POST updates to; repeatable or comma-separated. __TOPIC__ in it stands for the topic."`
	WebhookBody         string   `name:"webhook-body" default:"v1" oneof:"v1,v2" help:"What a POST holds: v1 the names of changed keys, as kafka-keyvalue 1.x and 2.x; v2 values, deletes and positions."`
	WebhookSecretFile   string   `name:"webhook-secret-file" placeholder:"FILE" help:"File with the secret that signs POSTs by the headers of Standard Webhooks: whsec_ and base64, or plain text. Several, separated by white space, sign each."`
	WebhookSecret       string   `name:"webhook-secret" secret:"" placeholder:"SECRET" help:"The secret itself, in place of --webhook-secret-file; better in the environment than on a command line, which others can see."`

	WebhookLookback time.Duration `name:"webhook-lookback" default:"1m" check:"notnegative" help:"Tell a receiver that is first seen while kkv runs what has changed for so long."`
	WebhookResume   string        `name:"webhook-resume" placeholder:"FILE" help:"Keep in this file how far each receiver was told, so that it is told what changed during a restart."`

	TargetStaticHost  string `name:"target-static-host" compat:"TARGET_STATIC_HOST" check:"host" placeholder:"HOST" help:"Host to POST updates to, at --on-update-path."`
	TargetStaticPort  int    `name:"target-static-port" default:"8080" compat:"TARGET_STATIC_PORT" check:"port" help:"Port of --target-static-host."`
	TargetServiceName string `name:"target-service-name" compat:"TARGET_SERVICE_NAME" check:"label" placeholder:"NAME" help:"Kubernetes service whose endpoints get updates, at --on-update-path."`
	// Kubernetes itself sets TARGET_SERVICE_PORT in every pod next to a service named "target", hence `with`.
	TargetServicePort      int           `name:"target-service-port" default:"8080" compat:"TARGET_SERVICE_PORT" with:"target-service-name" check:"port" help:"Port of the endpoints of --target-service-name; its environment names are read only while that one is set."`
	TargetServiceNamespace string        `name:"target-service-namespace" compat:"TARGET_SERVICE_NAMESPACE" check:"label" placeholder:"NAMESPACE" help:"Namespace of --target-service-name; by default that of the pod."`
	InformerResyncPeriod   time.Duration `name:"informer-resync-period" default:"5m" compat:"INFORMER_RESYNC_PERIOD=duration" check:"notnegative" help:"List the endpoints of --target-service-name anew this often."`
	KubeAccountDir         string        `name:"kube-account-dir" default:"/var/run/secrets/kubernetes.io/serviceaccount" placeholder:"DIR" help:"The service account that may list and watch EndpointSlices for --target-service-name: a directory with token, ca.crt and namespace, as Kubernetes mounts it."`
	DispatcherRetryBackoff time.Duration `name:"dispatcher-retry-backoff" default:"1s" compat:"DISPATCHER_RETRY_BACKOFF_SECONDS=duration" check:"notnegative" help:"Wait this long before a failed push is tried again; it grows from there."`

	// Accepted so that existing deployments start unchanged; nothing reads them.
	DispatcherRetryTimes string `name:"dispatcher-retry-times" hidden:"" compat:"DISPATCHER_RETRY_TIMES" help:"Accepted, not used: a push is never given up."`
	KafkaGroupID         string `name:"kafka-group-id" hidden:"" compat:"KAFKA_GROUP_ID,kafka_group_id" help:"Accepted, not used: there is no consumer group."`
	KafkaMaxPollRecords  string `name:"kafka-max-poll-records" hidden:"" compat:"kafka_max_poll_records" help:"Accepted, not used: fetches are sized by bytes."`

	Log
}

// Gateway is the HTTP front of Kafka, with kafka-pixy's routes.
type Gateway struct {
	Kafka

	Listen      string `name:"listen" default:":19092" check:"listen" need:"an address such as :19092" help:"Address of the gateway; port 0 picks a free one."`
	Cluster     string `name:"cluster" default:"default" check:"segment" need:"a name such as default" help:"Name of the Kafka cluster in /clusters/{name}/… routes."`
	Partitioner string `name:"partitioner" default:"murmur2" oneof:"murmur2,fnv1a" help:"How a key finds its partition: murmur2 as Java clients do, fnv1a as kafka-pixy does."`

	Log
}

// Dev is everything in one process. With Kafka.Bootstrap empty it embeds a broker.
type Dev struct {
	Kafka

	DemoListen    string   `name:"demo-listen" default:"127.0.0.1:8080" check:"listen" need:"an address such as 127.0.0.1:8080" help:"Address of the demo application; port 0 picks a free one."`
	CacheListen   string   `name:"cache-listen" default:"127.0.0.1:8091" check:"listen" need:"an address such as 127.0.0.1:8091" help:"Address of the cache; port 0 picks a free one."`
	Replicas      int32    `name:"replicas" default:"2" check:"positive" help:"Replicas of the cache, which the page shows side by side. The first alone pushes to --webhook-target."`
	ReplicaListen string   `name:"replica-listen" default:"127.0.0.1:8094" check:"listen" need:"an address such as 127.0.0.1:8094" help:"Address of replica 2; further ones take the ports after it. Port 0 picks free ones."`
	GatewayListen string   `name:"gateway-listen" default:"127.0.0.1:8092" check:"listen" need:"an address such as 127.0.0.1:8092" help:"Address of the gateway; port 0 picks a free one."`
	KafkaListen   string   `name:"kafka-listen" default:"127.0.0.1:9092" check:"listen" need:"an address such as 127.0.0.1:9092" help:"Address of the embedded broker; port 0 picks a free one. Not used with --kafka-bootstrap."`
	Topic         string   `name:"topic" default:"sidecar-demo" check:"topic" need:"the topic to create and serve" help:"The topic to create, compacted, and to serve."`
	Partitions    int32    `name:"partitions" default:"3" check:"positive" help:"Partitions of the topic when it is created."`
	DataDir       string   `name:"data-dir" placeholder:"DIR" help:"Keep the embedded broker's data here across restarts; when empty it ends with the process."`
	WebhookTarget []string `name:"webhook-target" check:"url" placeholder:"URL" help:"URL to POST updates to; repeatable or comma-separated. __TOPIC__ in it stands for the topic."`

	Log
}

// Demo is the demo application on caches that run elsewhere.
type Demo struct {
	Listen string   `name:"listen" default:":8080" check:"listen" need:"an address such as :8080" help:"Address of the application; port 0 picks a free one."`
	Server []string `name:"server" default:"http://127.0.0.1:8091" check:"url" need:"the URL of a cache, such as http://127.0.0.1:8091" placeholder:"URL" help:"URLs of caches, tried in turn; repeatable or comma-separated."`
	Topic  string   `name:"topic" check:"topic" help:"The topic to show; may be empty when the cache serves one."`

	Log
}

// Validate reports every fault of the settings at once, as Faults.
func (s *Serve) Validate() error {
	more := s.needBootstrap(s)
	if s.WebhookSecret != "" && s.WebhookSecretFile != "" {
		more = append(more, Fault{Setting: "webhook-secret", Problem: "is set beside webhook-secret-file", Fix: "set one of them"})
	}
	return validate(s, more)
}

// Validate reports every fault of the settings at once, as Faults.
func (s *Gateway) Validate() error { return validate(s, s.needBootstrap(s)) }

// Validate reports every fault of the settings at once, as Faults.
func (s *Dev) Validate() error { return validate(s, nil) }

// Validate reports every fault of the settings at once, as Faults.
func (s *Demo) Validate() error { return validate(s, nil) }

// needBootstrap faults a command that has no broker to start from. A properties file may name them, which only package
// kafka can tell.
func (k *Kafka) needBootstrap(of Settings) Faults {
	if len(k.Bootstrap) > 0 || k.ConfigFile != "" {
		return nil
	}
	for _, p := range k.Property {
		if name, _, _ := strings.Cut(p, "="); strings.TrimSpace(name) == "bootstrap.servers" {
			return nil
		}
	}
	for _, s := range settingsOf(of) {
		if s.name == "kafka-bootstrap" {
			return Faults{{Setting: s.name, Problem: "is not set", Fix: "set " + s.names() + " to the brokers, such as kafka:9092"}}
		}
	}
	return nil
}

// Targets are the URLs, fixed for the process, that updates are POSTed to: every WebhookTarget with __TOPIC__ replaced,
// then TargetStaticHost with OnUpdatePath. Endpoints of TargetServiceName are not among them.
func (s *Serve) Targets() []string {
	targets := expandTopic(s.WebhookTarget, s.Topic)
	if s.TargetStaticHost != "" {
		targets = append(targets, s.updatesURL(strings.Trim(s.TargetStaticHost, "[]"), s.TargetStaticPort))
	}
	return targets
}

// EndpointURL is where updates are POSTed to at the endpoint of TargetServiceName with that IP address.
func (s *Serve) EndpointURL(ip string) string { return s.updatesURL(ip, s.TargetServicePort) }

// updatesURL has OnUpdatePath at host, a name or an IP address without brackets. The path goes through Parse, so that a query or an escape
// in it stays what it is; what Validate has passed parses.
func (s *Serve) updatesURL(host string, port int) string {
	at := "http://" + net.JoinHostPort(host, strconv.Itoa(port)) + s.OnUpdatePath
	if u, err := url.Parse(at); err == nil {
		return u.String()
	}
	return at
}

// Targets are the URLs that updates are POSTed to: every WebhookTarget with __TOPIC__ replaced.
func (s *Dev) Targets() []string { return expandTopic(s.WebhookTarget, s.Topic) }

// expandTopic puts the topic where 1.x allowed __TOPIC__. Legal topic names need no escaping in a URL.
func expandTopic(targets []string, topic string) []string {
	out := make([]string, len(targets))
	for i, t := range targets {
		out[i] = strings.ReplaceAll(t, "__TOPIC__", topic)
	}
	return out
}

// Logger writes to w in the format and from the level that the settings ask for; an unknown level counts as info.
func (l Log) Logger(w io.Writer) *slog.Logger {
	var level slog.Level // info
	_ = level.UnmarshalText([]byte(l.LogLevel))
	options := &slog.HandlerOptions{Level: level}
	if l.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}
