package kafka

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Action is what to do about an error from Kafka.
type Action int

const (
	// Retry: it may pass by itself; back off and try again, for ever.
	Retry Action = iota
	// Reopen: what we held on to (a topic ID, an offset, the log before it)
	// is no longer there; look at metadata and offsets anew.
	Reopen
	// Fatal: Kafka says no, and will until somebody changes something.
	Fatal
)

func (a Action) String() string {
	switch a {
	case Retry:
		return "retry"
	case Reopen:
		return "reopen"
	case Fatal:
		return "fatal"
	}
	return "unknown"
}

// fatal are the answers that Kafka itself calls final: who we are, what we
// may do, what it cannot speak.
var fatal = []error{
	kerr.SaslAuthenticationFailed, kerr.UnsupportedSaslMechanism, kerr.IllegalSaslState, kerr.SecurityDisabled,
	kerr.TopicAuthorizationFailed, kerr.GroupAuthorizationFailed, kerr.ClusterAuthorizationFailed,
	kerr.TransactionalIDAuthorizationFailed, kerr.DelegationTokenAuthorizationFailed,
	kerr.UnsupportedVersion, kerr.InvalidTopicException,
}

var reopen = []error{
	kerr.UnknownTopicID, kerr.InconsistentTopicID, kerr.OffsetOutOfRange,
}

// Classify is the one place that decides what an error from Kafka means.
// Errors that are merely not understood are Retry: giving up is worse than
// trying once more. Nil is Retry.
func Classify(err error) Action {
	for _, f := range fatal {
		if errors.Is(err, f) {
			return Fatal
		}
	}
	for _, r := range reopen {
		if errors.Is(err, r) {
			return Reopen
		}
	}
	if _, ok := errors.AsType[*kgo.ErrDataLoss](err); ok {
		return Reopen
	}
	if untrusted(err) || brokerTooOld(err) {
		return Fatal
	}
	return Retry
}

// untrusted tells whether one side of a TLS handshake refused the other's
// certificate.
func untrusted(err error) bool {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return true
	}
	if alert, ok := errors.AsType[tls.AlertError](err); ok {
		switch alert {
		case 42, 43, 44, 45, 46, 48, 116: // RFC 8446 section 6.2: bad, unsupported, revoked, expired, unknown, unknown CA, certificate required
			return true
		}
	}
	// Over an existing connection crypto/tls reports the peer's alert as an
	// unexported type inside a net.OpError.
	if err != nil {
		text := err.Error()
		for _, s := range []string{
			"remote error: tls: bad certificate", "remote error: tls: unsupported certificate",
			"remote error: tls: revoked certificate", "remote error: tls: expired certificate",
			"remote error: tls: unknown certificate", "remote error: tls: certificate required",
		} {
			if strings.Contains(text, s) {
				return true
			}
		}
	}
	return false
}

// brokerTooOld recognises kgo's own finding, which it does not export, that
// the broker cannot take a request; a test holds this text.
func brokerTooOld(err error) bool {
	return err != nil && strings.Contains(err.Error(), "broker is too old")
}

// Hint says what to do about an error from Kafka, in one sentence without an
// end mark; "" when there is nothing better to say than the error itself.
func Hint(err error) string {
	eof, isEOF := errors.AsType[*kgo.ErrFirstReadEOF](err)
	switch {
	case err == nil:
		return ""
	case errors.Is(err, kerr.SaslAuthenticationFailed):
		return "check the user name and password in sasl.jaas.config (or sasl.username, sasl.password)"
	case errors.Is(err, kerr.UnsupportedSaslMechanism):
		return "the broker does not offer this sasl.mechanism on this port; check both"
	case errors.Is(err, kerr.TopicAuthorizationFailed), errors.Is(err, kerr.ClusterAuthorizationFailed), errors.Is(err, kerr.GroupAuthorizationFailed):
		return "grant this user the ACL with kafka-acls (reading needs READ and DESCRIBE on the topic, producing WRITE, creating CREATE)"
	case errors.Is(err, kerr.UnsupportedVersion), brokerTooOld(err):
		return "this broker is too old for kkv; use Apache Kafka 2.1 or later"
	case errors.Is(err, kerr.UnknownTopicOrPartition):
		return "create the topic first: kafka-topics --create, or kkv serve --create-topic"
	case errors.Is(err, kerr.InvalidTopicException):
		return "a topic name has 1 to 249 of the characters a-z A-Z 0-9 . _ -"
	case untrusted(err):
		return "one side does not trust the other's certificate: check ssl.truststore and ssl.keystore, and that the broker's host name is in its certificate"
	case isEOF && eof != nil, errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the broker closed the connection: check that security.protocol is what this port expects, and the credentials"
	case isRecordHeader(err):
		return "the broker does not speak TLS on this port: check security.protocol and the port"
	case isDial(err):
		return "check that Kafka runs there and can be reached from here: what --kafka-bootstrap names, and the brokers' advertised.listeners"
	}
	return ""
}

// Explain is err with its Hint, where there is one.
func Explain(err error) error {
	if hint := Hint(err); hint != "" {
		return fmt.Errorf("%w; %s", err, hint)
	}
	return err
}

// isDial tells whether no connection came about: name, address, port, or a
// handshake that nobody answered.
func isDial(err error) bool {
	dial, ok := errors.AsType[*net.OpError](err)
	return ok && dial.Op == "dial"
}

func isRecordHeader(err error) bool {
	_, ok := errors.AsType[tls.RecordHeaderError](err)
	return ok
}

// ProduceError says that a record was not acknowledged, and whether it may
// have been written all the same.
type ProduceError struct {
	Topic   string
	Unknown bool // it may have been written, or be written later
	Err     error
}

func (e *ProduceError) Error() string {
	if e.Unknown {
		return "produce to " + e.Topic + ": outcome unknown, it may have been written: " + e.Err.Error()
	}
	return "produce to " + e.Topic + ": not written: " + e.Err.Error()
}

func (e *ProduceError) Unwrap() error { return e.Err }

// OutcomeUnknown tells whether the record of a failed produce may have been
// written, or be written yet. If not, it certainly was not and will not be.
// It is false for errors that did not come from a Producer.
func OutcomeUnknown(err error) bool {
	e, ok := errors.AsType[*ProduceError](err)
	return ok && e.Unknown
}

// undecided are Kafka's answers to a produce after which the record may stand
// in the log: it did not reach enough replicas in time, or the producer's
// sequence broke, so that an earlier try may have been the one that worked.
var undecided = []error{
	kerr.RequestTimedOut, kerr.NotEnoughReplicasAfterAppend,
	kerr.OutOfOrderSequenceNumber, kerr.UnknownProducerID, kerr.InvalidProducerEpoch, kerr.InvalidProducerIDMapping,
	kerr.UnknownServerError, kerr.NetworkException,
}

// produceUnknown judges the error of a kgo promise. kgo fails a record for a
// context, a timeout or retries only while it is sure that no try of it can
// have been written, and otherwise waits for the broker's word.
func produceUnknown(err error) bool {
	if kafkaSays, ok := errors.AsType[*kerr.Error](err); ok {
		for _, u := range undecided {
			if errors.Is(kafkaSays, u) {
				return true
			}
		}
		return false
	}
	for _, known := range []error{
		kgo.ErrRecordTimeout, kgo.ErrRecordRetries, kgo.ErrMaxBuffered,
		context.Canceled, context.DeadlineExceeded,
	} {
		if errors.Is(err, known) {
			return false
		}
	}
	return !untrusted(err) && !brokerTooOld(err)
}
