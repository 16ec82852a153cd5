package broker

import (
	"errors"
	"fmt"
)

// Code is an error that crosses the wire. The numbers are those of the Kafka protocol, so that the protocol face writes
// them as they are; rooms below it branch on the names with errors.Is.
type Code int16

// The codes in use, with Kafka's numbers.
const (
	UnknownServerError           Code = -1
	None                         Code = 0
	OffsetOutOfRange             Code = 1
	CorruptMessage               Code = 2
	UnknownTopicOrPartition      Code = 3
	InvalidFetchSize             Code = 4
	LeaderNotAvailable           Code = 5
	NotLeaderOrFollower          Code = 6
	RequestTimedOut              Code = 7
	BrokerNotAvailable           Code = 8
	ReplicaNotAvailable          Code = 9
	MessageTooLarge              Code = 10
	OffsetMetadataTooLarge       Code = 12
	NetworkException             Code = 13
	CoordinatorLoadInProgress    Code = 14
	CoordinatorNotAvailable      Code = 15
	NotCoordinator               Code = 16
	InvalidTopic                 Code = 17
	RecordListTooLarge           Code = 18
	NotEnoughReplicas            Code = 19
	NotEnoughReplicasAfterAppend Code = 20
	InvalidRequiredAcks          Code = 21
	IllegalGeneration            Code = 22
	InconsistentGroupProtocol    Code = 23
	InvalidGroupID               Code = 24
	UnknownMemberID              Code = 25
	InvalidSessionTimeout        Code = 26
	RebalanceInProgress          Code = 27
	InvalidCommitOffsetSize      Code = 28
	TopicAuthorizationFailed     Code = 29
	GroupAuthorizationFailed     Code = 30
	ClusterAuthorizationFailed   Code = 31
	InvalidTimestamp             Code = 32
	UnsupportedSaslMechanism     Code = 33
	IllegalSaslState             Code = 34
	UnsupportedVersion           Code = 35
	TopicAlreadyExists           Code = 36
	InvalidPartitions            Code = 37
	InvalidReplicationFactor     Code = 38
	InvalidReplicaAssignment     Code = 39
	InvalidConfig                Code = 40
	NotController                Code = 41
	InvalidRequest               Code = 42
	UnsupportedForMessageFormat  Code = 43
	PolicyViolation              Code = 44
	OutOfOrderSequence           Code = 45
	DuplicateSequence            Code = 46
	InvalidProducerEpoch         Code = 47
	InvalidTxnState              Code = 48
	InvalidProducerIDMapping     Code = 49
	TransactionalIDAuthFailed    Code = 53
	SecurityDisabled             Code = 54
	StorageError                 Code = 56
	SaslAuthenticationFailed     Code = 58
	UnknownProducerID            Code = 59
	ReassignmentInProgress       Code = 60
	NonEmptyGroup                Code = 68
	GroupIDNotFound              Code = 69
	FetchSessionIDNotFound       Code = 70
	InvalidFetchSessionEpoch     Code = 71
	FencedLeaderEpoch            Code = 74
	UnknownLeaderEpoch           Code = 75
	UnsupportedCompressionType   Code = 76
	StaleBrokerEpoch             Code = 77
	OffsetNotAvailable           Code = 78
	MemberIDRequired             Code = 79
	PreferredLeaderNotAvailable  Code = 80
	GroupMaxSizeReached          Code = 81
	FencedInstanceID             Code = 82
	EligibleLeadersNotAvailable  Code = 83
	ElectionNotNeeded            Code = 84
	NoReassignmentInProgress     Code = 85
	GroupSubscribedToTopic       Code = 86
	InvalidRecord                Code = 87
	UnstableOffsetCommit         Code = 88
	ThrottlingQuotaExceeded      Code = 89
	ProducerFenced               Code = 90
	ResourceNotFound             Code = 91
	DuplicateResource            Code = 92
	UnacceptableCredential       Code = 93
	InconsistentVoterSet         Code = 94
	InvalidUpdateVersion         Code = 95
	FeatureUpdateFailed          Code = 96
	SnapshotNotFound             Code = 98
	UnknownTopicID               Code = 100
	DuplicateBrokerRegistration  Code = 101
	BrokerIDNotRegistered        Code = 102
	InconsistentTopicID          Code = 103
	InconsistentClusterID        Code = 104
	IneligibleReplica            Code = 107
	NewLeaderElected             Code = 108
	FencedMemberEpoch            Code = 110
	UnreleasedInstanceID         Code = 111
	UnsupportedAssignor          Code = 112
	StaleMemberEpoch             Code = 113
	InvalidRegularExpression     Code = 128
)

// Error makes a bare code usable as an error value and as the target of errors.Is.
func (c Code) Error() string { return fmt.Sprintf("error code %d", int16(c)) }

// Error is a code with a sentence for the person who reads it: what happened, to what, and what to do.
type Error struct {
	Code    Code
	Message string
}

// Errorf returns an Error with a formatted message.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

func (e *Error) Error() string { return e.Message }

// Unwrap lets errors.Is match the code.
func (e *Error) Unwrap() error { return e.Code }

// CodeOf returns the code that err carries: None for nil, UnknownServerError where it carries none.
func CodeOf(err error) Code {
	if err == nil {
		return None
	}
	var code Code
	if errors.As(err, &code) {
		return code
	}
	return UnknownServerError
}
