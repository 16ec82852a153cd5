// Package partition holds the rules by which the replicas of one partition agree: a Leader and a Follower as values that
// take events and the time and return effects. Between them they keep the promise that a record below the high
// watermark is on stable storage at every member of the maximal ISR, and stays in the log of every later clean leader.
//
// The rules are those of the replication protocol, cited as Q0–Q7 with the findings (RC, RH, RM) that each prevents:
//   - Q4, the leader's books of each follower: which subscription is live, what it acknowledged. An acknowledgement
//     counts only from the subscription that is live now (RC3).
//   - Q5, the high watermark: the smallest durable end over the maximal ISR (the committed ISR, every ISR proposed since,
//     and the replicas that are joining), and only while the committed ISR has min.insync members (KIP-966).
//   - Q6, who joins the ISR and who leaves it, as proposals to the controller. A pending proposal is settled by an image,
//     never by an answer (RC8).
//   - Q7, roles: a new leader epoch makes a new value; within one, a higher partition epoch changes the members.
//
// It never does: no goroutine, lock, clock, file or logger; it moves no bytes and knows no sessions or frames. A role
// belongs to the partition's owner (broker/replica). Ends are exclusive; times are milliseconds of any clock that does
// not run backwards.
package partition
