package quorum

import (
	"fmt"

	"github.com/rs/zerolog"
	"go.etcd.io/raft/v3"
)

// raftLogger carries raft's own messages into the node's log. What raft calls information is one level lower here.
type raftLogger struct{ to zerolog.Logger }

var _ raft.Logger = raftLogger{}

func (l raftLogger) say(e *zerolog.Event, v []any) { e.Str("raft", fmt.Sprint(v...)).Msg("raft") }
func (l raftLogger) sayf(e *zerolog.Event, format string, v []any) {
	e.Str("raft", fmt.Sprintf(format, v...)).Msg("raft")
}
func (l raftLogger) Debug(v ...any)                   { l.say(l.to.Trace(), v) }
func (l raftLogger) Debugf(format string, v ...any)   { l.sayf(l.to.Trace(), format, v) }
func (l raftLogger) Info(v ...any)                    { l.say(l.to.Debug(), v) }
func (l raftLogger) Infof(format string, v ...any)    { l.sayf(l.to.Debug(), format, v) }
func (l raftLogger) Warning(v ...any)                 { l.say(l.to.Warn(), v) }
func (l raftLogger) Warningf(format string, v ...any) { l.sayf(l.to.Warn(), format, v) }
func (l raftLogger) Error(v ...any)                   { l.say(l.to.Error(), v) }
func (l raftLogger) Errorf(format string, v ...any)   { l.sayf(l.to.Error(), format, v) }
func (l raftLogger) Fatal(v ...any)                   { panic(fmt.Sprint(v...)) }
func (l raftLogger) Fatalf(format string, v ...any)   { panic(fmt.Sprintf(format, v...)) }
func (l raftLogger) Panic(v ...any)                   { panic(fmt.Sprint(v...)) }
func (l raftLogger) Panicf(format string, v ...any)   { panic(fmt.Sprintf(format, v...)) }
