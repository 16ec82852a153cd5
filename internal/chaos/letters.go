package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// identity is what makes two dead letters one.
type identity struct {
	binding   uint64
	topicID   string
	partition int32
	offset    int64
	row       uint64
}

// letterRead is a dead letter as it lies in its topic.
type letterRead struct {
	identity
	key, value string
}

// readLetters reads a whole dead-letter topic.
func readLetters(ctx context.Context, client *kgo.Client, seeds []string, deadLetterTopic string) ([]letterRead, error) {
	offsets, err := kadm.NewClient(client).ListEndOffsets(ctx, deadLetterTopic)
	if err == nil {
		err = offsets.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("ends of %s: %w", deadLetterTopic, err)
	}
	ends := make([]int64, partitions)
	for partition := range ends {
		end, _ := offsets.Lookup(deadLetterTopic, int32(partition))
		ends[partition] = end.Offset - 1
	}
	records, err := readRecords(ctx, seeds, source{topic: deadLetterTopic}, ends)
	if err != nil {
		return nil, err
	}
	var all []letterRead
	for partition := range records {
		for _, r := range records[partition] {
			l := letterRead{key: string(r.Key), value: string(r.Value)}
			for _, h := range r.Headers {
				number, _ := strconv.ParseUint(string(h.Value), 10, 63) // what is no number names no letter that is awaited
				switch h.Key {
				case "millrace.dlq.binding":
					l.binding = number
				case "millrace.dlq.topic-id":
					l.topicID = string(h.Value)
				case "millrace.dlq.partition":
					l.partition = int32(number)
				case "millrace.dlq.offset":
					l.offset = int64(number)
				case "millrace.dlq.row":
					l.row = number
				}
			}
			if l.partition != int32(partition) {
				return nil, fmt.Errorf("%s partition %d holds a letter of partition %d", deadLetterTopic, partition, l.partition)
			}
			all = append(all, l)
		}
	}
	return all, nil
}

// checkLetters is checker 3: what must be lettered below the ends of a dump has a letter with the source's bytes, and
// nothing else below them has one; what retention took, below starts, may be without. It returns how many letters were
// repeats.
func checkLetters(of uint64, topicID string, dump [][]entry, judged []judgement, starts []int64, letters []letterRead) (repeats int, wrong []string) {
	want := map[identity]bool{}
	for partition, j := range judged {
		for _, l := range j.letters {
			want[identity{of, topicID, int32(partition), l.offset, l.row}] = true
		}
	}
	found := map[identity]int{}
	for _, l := range letters {
		if l.offset >= int64(len(dump[l.partition])) {
			continue // behind this dump
		}
		found[l.identity]++
		e := dump[l.partition][l.offset]
		switch {
		case !want[l.identity]:
			wrong = append(wrong, fmt.Sprintf("a letter for what is not lettered: %+v %.120q", l.identity, e.value))
		case e.key != l.key || e.value != l.value:
			wrong = append(wrong, fmt.Sprintf("the letter %+v holds %.120q, its source %.120q", l.identity, l.value, e.value))
		}
	}
	for id := range want {
		if found[id] == 0 && id.offset >= starts[id.partition] {
			wrong = append(wrong, fmt.Sprintf("no letter for %+v %.120q", id, dump[id.partition][id.offset].value))
		}
		repeats += max(found[id]-1, 0)
	}
	return repeats, wrong
}
