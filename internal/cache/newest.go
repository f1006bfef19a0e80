package cache

import (
	"github.com/kkv-project/kkv/internal/feed"
	"github.com/kkv-project/kkv/internal/position"
	"github.com/kkv-project/kkv/internal/store"
)

// Newest returns what there is of each key, a deleted Change if nothing, all at the position that it returns: the zero
// one before the cache is ready.
func (c *Cache) Newest(keys [][]byte) ([]feed.Change, position.Position) {
	recs := make([]store.Record, len(keys))
	mark, err := c.GetMany(keys, recs)
	if err != nil {
		return nil, position.Position{}
	}
	changes := make([]feed.Change, len(keys))
	for i := range recs {
		if recs[i].Value == nil {
			changes[i] = feed.Change{Key: keys[i], Deleted: true}
			continue
		}
		changes[i] = changeOf(&recs[i], false)
	}
	return changes, mark.Position
}
