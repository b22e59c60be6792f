package exchange

import (
	"reflect"
	"testing"
	"time"
)

// TestHistogram: a duration is counted below the first bound that it is not above.
func TestHistogram(t *testing.T) {
	var h Histogram
	for _, d := range []time.Duration{0, time.Millisecond, time.Millisecond + 1, time.Minute, time.Hour} {
		h.observe(d)
	}
	want := Histogram{Count: 5, Sum: 2*time.Millisecond + 1 + time.Minute + time.Hour}
	want.Buckets[0], want.Buckets[1], want.Buckets[histogramBounds-1], want.Buckets[histogramBounds] = 2, 1, 1, 1
	if h != want {
		t.Errorf("%+v", h)
	}
}

// TestUsageNamesLimits: every usage is of a field of Limits, with its value, and none is told twice. Limits
// without a usage are times, rates, or what others are derived from.
func TestUsageNamesLimits(t *testing.T) {
	without := map[string]bool{"PeerBytesMin": true, "ProbeBytes": true, "SearchProviders": true, "Retries": true, "HedgePercent": true, "Spending": true}
	simulatePaid(t, Limits{DayBudget: 77}, newSimPurse(), func(s *sim) {
		told := make(map[string]bool)
		limits := reflect.ValueOf(s.limits)
		for _, u := range s.Usage() {
			f := limits.FieldByName(u.Name)
			var limit int64
			if f.IsValid() && f.CanInt() {
				limit = f.Int()
			} else if f.IsValid() {
				limit = int64(f.Uint())
			}
			if limit != u.Limit || limit == 0 || told[u.Name] {
				t.Errorf("%+v, the field has %d", u, limit)
			}
			told[u.Name] = true
		}
		for i := range limits.NumField() {
			f := limits.Type().Field(i)
			if f.Type != reflect.TypeFor[time.Duration]() && told[f.Name] == without[f.Name] {
				t.Errorf("limit %s: told %v", f.Name, told[f.Name])
			}
		}
	})
}
