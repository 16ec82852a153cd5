package golden

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// Guard is the one user of brokers that ask for SASL.
type Guard struct{ User, Password string }

// AskGuarded asks two brokers that want SASL how they take it. Both offer PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512.
func AskGuarded(ctx context.Context, brokers Brokers, guard Guard) ([]Pair, error) {
	return ask(ctx, brokers, func(s *script) error {
		for _, c := range []chapter{
			{key: kmsg.SASLHandshake, story: handshakeStory},
			{key: kmsg.SASLAuthenticate, story: guard.authenticateStory},
		} {
			versions := s.both[c.key.Int16()]
			for v := versions.min; v <= versions.max; v++ {
				if err := s.tellChapter(c, v); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// handshakeStory shakes hands on connections of their own, because what is refused ends them.
func handshakeStory(s *script, v int16) error {
	for _, mechanism := range []string{"PLAIN", "SCRAM-SHA-256", "GOLDEN", ""} {
		s.close()
		if err := s.tell("mechanism "+mechanism, v, handshake(mechanism)); err != nil {
			return err
		}
	}
	s.close()
	if err := s.tell("metadata before", 9, metadata(topicGolden)); err != nil {
		return err
	}
	s.close()
	return nil
}

// begin shakes hands without a record.
func (s *script) begin(mechanism string) error {
	s.close()
	return s.silently(func() error { return s.tell("", 1, handshake(mechanism)) })
}

func (g Guard) authenticateStory(s *script, v int16) error {
	s.close()
	if err := s.tell("no handshake", v, authenticate([]byte("\x00"+g.User+"\x00"+g.Password))); err != nil {
		return err
	}
	for _, one := range []struct{ label, token string }{
		{"plain, good", "\x00" + g.User + "\x00" + g.Password}, {"plain, another password", "\x00" + g.User + "\x00golden"},
		{"plain, unknown user", "\x00nobody\x00golden"}, {"plain, for another", "other\x00" + g.User + "\x00" + g.Password},
		{"plain, no password", "\x00" + g.User + "\x00"}, {"plain, nothing", ""}, {"plain, nonsense", "golden"},
	} {
		if err := s.begin("PLAIN"); err != nil {
			return err
		}
		if err := s.tell(one.label, v, authenticate([]byte(one.token))); err != nil {
			return err
		}
	}
	if err := s.begin("SCRAM-SHA-256"); err != nil {
		return err
	}
	if err := s.tell("scram, nonsense", v, authenticate([]byte("golden"))); err != nil {
		return err
	}
	for _, one := range []struct{ label, password string }{{"scram", g.Password}, {"scram, another password", "golden"}} {
		if err := g.scram(s, v, one.label, one.password); err != nil {
			return err
		}
	}
	s.close()
	return nil
}

// scram goes through a whole exchange.
func (g Guard) scram(s *script, v int16, label, password string) error {
	if err := s.begin("SCRAM-SHA-256"); err != nil {
		return err
	}
	mechanism := scram.Auth{User: g.User, Pass: password}.AsSha256Mechanism()
	exchange, token, err := mechanism.Authenticate(s.ctx, s.address)
	if err != nil {
		return err
	}
	for done := false; !done; {
		resp, err := s.ask(label, v, authenticate(token))
		if errors.Is(err, errClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		answer := resp.(*kmsg.SASLAuthenticateResponse)
		if answer.ErrorCode != 0 {
			return nil
		}
		if done, token, err = exchange.Challenge(answer.SASLAuthBytes); err != nil {
			return err
		}
	}
	return nil
}
