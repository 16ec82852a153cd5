package group

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/millrace-io/millrace/broker"
)

// dealt makes shares of members that subscribe to topics by number.
func dealt(topics []Topic, subscriptions ...[]int) []share {
	shares := make([]share, len(subscriptions))
	for i, subscribed := range subscriptions {
		shares[i].member = newConsumer(fmt.Sprint("m", i))
		for _, t := range subscribed {
			shares[i].topics = append(shares[i].topics, topics[t])
		}
	}
	return shares
}

func topicsOf(partitions ...int32) []Topic {
	topics := make([]Topic, len(partitions))
	for i, n := range partitions {
		topics[i] = Topic{Name: fmt.Sprint("t", i), ID: broker.TopicID{byte(i + 1)}, Partitions: n}
	}
	return topics
}

// held counts who has what, and fails if somebody has what it does not subscribe to or what another has.
func held(t *testing.T, shares []share) map[broker.TopicPartition]int {
	t.Helper()
	of := map[broker.TopicPartition]int{}
	for i, s := range shares {
		for _, tp := range s.has {
			at := slices.IndexFunc(s.topics, func(topic Topic) bool { return topic.ID == tp.Topic })
			if other, twice := of[tp]; twice || at < 0 || tp.Partition >= s.topics[at].Partitions {
				t.Fatalf("member %d has %v, as member %d does, or does not subscribe to it", i, tp, other)
			}
			of[tp] = i
		}
	}
	return of
}

// checkDealt demands that every partition with a reader is dealt.
func checkDealt(t *testing.T, shares []share) map[broker.TopicPartition]int {
	t.Helper()
	of := held(t, shares)
	for _, s := range shares {
		for _, topic := range s.topics {
			for p := range topic.Partitions {
				if _, ok := of[broker.TopicPartition{Topic: topic.ID, Partition: p}]; !ok {
					t.Fatalf("%s-%d is nobody's", topic.Name, p)
				}
			}
		}
	}
	return of
}

// TestUniformIsEvenAndMovesLittle deals to groups whose members, subscriptions and topics change, and demands each time
// that everything is dealt, that nobody could be given a partition of one who has two more, that dealing again changes
// nothing, and that where all subscribe to the same, no more moves than the counts ask for.
func TestUniformIsEvenAndMovesLittle(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 3))
		topics := topicsOf(rng.Int32N(9), rng.Int32N(9), 1+rng.Int32N(20))
		alike := seed%2 == 0
		var shares []share
		for range 12 {
			switch {
			case len(shares) > 1 && rng.IntN(3) == 0:
				at := rng.IntN(len(shares))
				shares = slices.Delete(shares, at, at+1)
			case rng.IntN(3) == 0:
				topics[rng.IntN(3)].Partitions++
			default:
				shares = append(shares, share{member: newConsumer("m")})
			}
			for i := range shares {
				shares[i].topics = nil
				for _, topic := range topics {
					if alike || rng.IntN(2) == 0 {
						shares[i].topics = append(shares[i].topics, topic)
					}
				}
			}
			before := make([][]broker.TopicPartition, len(shares))
			for i := range shares {
				before[i] = shares[i].has
			}
			assignUniform(shares)
			of := checkDealt(t, shares)
			for tp, owner := range of {
				for i, s := range shares {
					reads := slices.ContainsFunc(s.topics, func(topic Topic) bool { return topic.ID == tp.Topic })
					if reads && len(s.has)+1 < len(shares[owner].has) {
						t.Fatalf("seed %d: member %d has %d, %d has %d and could give %v", seed, i, len(s.has), owner, len(shares[owner].has), tp)
					}
				}
			}
			if alike {
				checkMoves(t, before, shares)
			}
			after := slices.Clone(shares)
			assignUniform(after)
			for i := range shares {
				if !slices.Equal(after[i].has, shares[i].has) {
					t.Fatalf("seed %d: dealing again gives %v for %v", seed, after[i].has, shares[i].has)
				}
			}
		}
	}
}

// checkMoves demands that nobody lost a partition and has fewer than it may have.
func checkMoves(t *testing.T, before [][]broker.TopicPartition, shares []share) {
	t.Helper()
	most := 0
	for _, s := range shares {
		most = max(most, len(s.has))
	}
	for i, s := range shares {
		lost := 0
		for _, tp := range before[i] {
			if !slices.Contains(s.has, tp) {
				lost++
			}
		}
		if lost > 0 && len(s.has) < most-1 || lost > max(0, len(before[i])-(most-1)) {
			t.Fatalf("member %d lost %d of %d and has %d, the most is %d", i, lost, len(before[i]), len(s.has), most)
		}
	}
}

func TestRangeDealsRuns(t *testing.T) {
	topics := topicsOf(5, 2, 3)
	shares := dealt(topics, []int{0, 1, 2}, []int{0, 1}, []int{0})
	shares[2].member.instanceID = "first" // static members come first
	assignRange(shares)
	checkDealt(t, shares)
	want := []string{
		"[t0-2 t0-3 t1-0 t2-0 t2-1 t2-2]", "[t0-4 t1-1]", "[t0-0 t0-1]",
	}
	for i, s := range shares {
		var names []string
		for _, tp := range s.has {
			names = append(names, fmt.Sprintf("t%d-%d", tp.Topic[0]-1, tp.Partition))
		}
		if got := fmt.Sprint(names); got != want[i] {
			t.Errorf("member %d has %s, want %s", i, got, want[i])
		}
	}
}

func TestNobodyIsDealtNothing(t *testing.T) {
	for _, name := range []string{AssignorUniform, AssignorRange} {
		assignors[name](nil)
		none := dealt(topicsOf(3), nil, nil)
		none[0].has = []broker.TopicPartition{{Topic: broker.TopicID{1}}}
		assignors[name](none)
		if len(none[0].has)+len(none[1].has) > 0 {
			t.Errorf("%s: members that subscribe to nothing have %v", name, none)
		}
	}
}

func BenchmarkUniform(b *testing.B) {
	topics := topicsOf(1000, 1000)
	subscriptions := make([][]int, 100)
	for i := range subscriptions {
		subscriptions[i] = []int{0, 1}
	}
	for b.Loop() {
		assignUniform(dealt(topics, subscriptions...))
	}
}
