package kafka

import (
	lru "container/list"
	"math"
	"sync"
	"time"
)

// fetchSessionCache bounds the sessions of all connections. It is safe for concurrent use.
type fetchSessionCache struct {
	sessionsMax   int
	partitionsMax int

	mu         sync.Mutex
	lastID     int32                  // guarded by mu
	partitions int                    // of all sessions; guarded by mu
	byID       map[int32]*lru.Element // guarded by mu
	byUse      *lru.List              // of *cachedSession, the one idle longest first; guarded by mu
}

type cachedSession struct {
	id         int32
	partitions int
	used       time.Time
}

// sessionIdleMin is how long a session must have been idle before another may have its place: else two clients too many
// would throw each other out with every request.
const sessionIdleMin = 2 * time.Minute

func newFetchSessionCache(sessionsMax, partitionsMax int) *fetchSessionCache {
	return &fetchSessionCache{
		sessionsMax: sessionsMax, partitionsMax: partitionsMax, byID: make(map[int32]*lru.Element), byUse: lru.New(),
	}
}

// begin counts a new session, if there is room or can be made.
func (c *fetchSessionCache) begin(partitions int) (id int32, room bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.makeRoom(1, partitions) {
		return 0, false
	}
	for taken := true; taken; {
		if c.lastID == math.MaxInt32 {
			c.lastID = 0
		}
		c.lastID++
		_, taken = c.byID[c.lastID]
	}
	c.byID[c.lastID] = c.byUse.PushBack(&cachedSession{id: c.lastID, partitions: partitions, used: time.Now()})
	c.partitions += partitions
	return c.lastID, true
}

// makeRoom ends sessions that have been idle for long until more fits.
func (c *fetchSessionCache) makeRoom(sessions, partitions int) bool {
	for len(c.byID)+sessions > c.sessionsMax || c.partitions+partitions > c.partitionsMax {
		oldest := c.byUse.Front()
		if oldest == nil || time.Since(oldest.Value.(*cachedSession).used) < sessionIdleMin {
			return false
		}
		c.remove(oldest)
	}
	return true
}

func (c *fetchSessionCache) remove(e *lru.Element) {
	gone := c.byUse.Remove(e).(*cachedSession)
	delete(c.byID, gone.id)
	c.partitions -= gone.partitions
}

// use marks a session as just used and reports whether it is still there.
func (c *fetchSessionCache) use(id int32) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, there := c.byID[id]
	if there {
		e.Value.(*cachedSession).used = time.Now()
		c.byUse.MoveToBack(e)
	}
	return there
}

// resize counts a session's partitions again and reports whether there is room for them.
func (c *fetchSessionCache) resize(id int32, partitions int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, there := c.byID[id]
	if !there {
		return false
	}
	cached := e.Value.(*cachedSession)
	more := partitions - cached.partitions
	if more > 0 && !c.makeRoom(0, more) {
		return false
	}
	cached.partitions += more
	c.partitions += more
	return true
}

func (c *fetchSessionCache) end(id int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, there := c.byID[id]; there {
		c.remove(e)
	}
}
