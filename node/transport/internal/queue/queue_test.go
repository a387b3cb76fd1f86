package queue

import (
	"testing"
)

func TestBounds(t *testing.T) {
	q := New[int](3, 100)
	for _, step := range []struct {
		bytes int64
		fits  bool
		why   string
	}{
		{1000, true, "alone, whatever its size"},
		{1, false, "the bytes are exceeded"},
	} {
		if got := q.Put(0, step.bytes); got != step.fits {
			t.Errorf("Put of %d bytes: %t (%s)", step.bytes, got, step.why)
		}
	}
	if items, ok := q.Take(nil); !ok || len(items) != 1 {
		t.Fatalf("Take: %v, %t", items, ok)
	}
	for i := range 4 {
		if got := q.Put(i, 1); got != (i < 3) {
			t.Errorf("Put of item %d into a queue of 3: %t", i, got)
		}
	}
	items, ok := q.Take(nil)
	if !ok || len(items) != 3 || items[0] != 0 || items[2] != 2 {
		t.Fatalf("Take: %v, %t", items, ok)
	}
}

func TestClose(t *testing.T) {
	q := New[int](3, 100)
	waiting := make(chan bool)
	go func() {
		_, ok := q.Take(nil)
		waiting <- ok
	}()
	q.Close()
	if <-waiting {
		t.Error("Take from a closed queue gave something")
	}
	if q.Put(1, 1) {
		t.Error("a closed queue took an item")
	}
}

// What was handed out is not held by the queue once it is given back.
func TestTakeReusesAndClears(t *testing.T) {
	q := New[*int](10, 100)
	q.Put(new(int), 1)
	items, _ := q.Take(nil)
	room := items[:0]
	q.Put(new(int), 1)
	second, _ := q.Take(room)
	if items[0] != nil {
		t.Error("the emptied slice still holds an item")
	}
	if len(second) != 1 || second[0] == nil {
		t.Errorf("Take: %v", second)
	}
}
