// Package store keeps the newest record of every key of a topic in memory: a million keys in little more than
// their bytes, and next to no work for the garbage collector. It knows neither Kafka nor HTTP.
//
// # Layout
//
// Records lie in append-only slabs of 1 MiB (record.go). A key has a number for as long as it lives. Three
// structures without pointers lead to a record:
//
//	index  hash of the key -> number       (index.go)
//	locs   number -> slab and offset       (locs.go), in pages
//	order  the numbers in the keys' order  (order.go), in leaves
//
// An overwrite appends to a slab and changes one entry of locs. What it leaves behind in the old slab is dead;
// when an eighth of all slab bytes is, the deadest slabs are rewritten: their live records are appended anew.
//
// # Concurrency
//
// A Store is written by one goroutine at a time and is guarded by the caller's read-write lock: Apply, Snapshot,
// StartOrder and FinishOrder want it for writing, the others for reading. What Get returns are views into slabs, and
// a slab's written bytes never change: a view stays good for ever, also without the lock, and keeps its slab alive.
//
// A Snapshot is taken in O(1). It shares pages, leaves and slabs with the Store, which copies a page or leaf before
// it changes one that a snapshot may see. Any goroutine may read it without a lock, and no writer waits for it;
// what it alone keeps alive goes with it.
package store
