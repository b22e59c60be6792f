package seal

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

var writeCorpus = flag.Bool("write-corpus", false, "write the fuzz targets' corpus below testdata anew")

// saveCorpus writes seeds in the form that go test reads.
func saveCorpus(t testing.TB, target string, seeds map[string][]byte) {
	t.Helper()
	dir := filepath.Join("testdata", "fuzz", target)
	must(t, os.MkdirAll(dir, 0o755))
	for name, b := range seeds {
		must(t, os.WriteFile(filepath.Join(dir, name), fmt.Appendf(nil, "go test fuzz v1\n[]byte(%q)\n", b), 0o644))
	}
}

func TestWriteCorpus(t *testing.T) {
	requests, answers, segments := map[string][]byte{}, map[string][]byte{}, map[string][]byte{}
	for i, m := range sampleRequests(t) {
		if s, ok := m.(*StoreRequest); ok {
			s.Descriptor = s.Descriptor[:min(len(s.Descriptor), 50)]
		}
		var b bytes.Buffer
		must(t, WriteMessage(&b, m))
		requests[fmt.Sprintf("%02d-%T", i, m)[0:3]+reflect.TypeOf(m).Elem().Name()] = b.Bytes()
	}
	for i, m := range sampleAnswers(t) {
		b, err := m.encode()
		must(t, err)
		answers[fmt.Sprintf("%02d-", i)+reflect.TypeOf(m).Elem().Name()] = b
	}
	for name, i := range map[string]int{"first": 0, "last": MaxSegments - 1} {
		var b bytes.Buffer
		must(t, WriteSegment(&b, i, []byte("segment")))
		must(t, EndSegments(&b))
		segments[name] = b.Bytes()
	}
	pledge, err := testPledge(t).Marshal()
	must(t, err)
	all := map[string]map[string][]byte{"FuzzRequest": requests, "FuzzAnswer": answers, "FuzzSegment": segments,
		"FuzzPledge": {"signed": pledge}}
	for target, seeds := range all {
		if *writeCorpus {
			saveCorpus(t, target, seeds)
		}
		for name := range seeds {
			if _, err := os.Stat(filepath.Join("testdata", "fuzz", target, name)); err != nil {
				t.Errorf("the corpus is not complete: %v", err)
			}
		}
	}
}

// What is read as a request is written and read again as the same.
func FuzzRequest(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := NewReader(bytes.NewReader(b)).ReadRequest(nil)
		if err != nil {
			return
		}
		var again bytes.Buffer
		must(t, WriteMessage(&again, m))
		n, err := NewReader(&again).ReadRequest(nil)
		must(t, err)
		if !reflect.DeepEqual(m, n) {
			t.Errorf("got %+v, want %+v", n, m)
		}
	})
}

func FuzzAnswer(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, m := range []Answer{&QuoteAnswer{}, &StoreAnswer{}, &BasicAnswer{}, &SegmentsAnswer{}, &DataAnswer{}, &SignatureAnswer{}, &AuditAnswer{}} {
			if m.decode(b) != nil {
				continue
			}
			again, err := m.encode()
			must(t, err)
			n := reflect.New(reflect.TypeOf(m).Elem()).Interface().(Answer)
			must(t, n.decode(again))
			twice, err := n.encode()
			must(t, err)
			if !bytes.Equal(again, twice) {
				t.Errorf("%T: got %+v, want %+v", m, n, m)
			}
		}
	})
}

func FuzzSegment(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		r := NewReader(bytes.NewReader(b))
		buf := new(SegmentBuffer)
		for {
			i, segment, err := r.ReadSegment(buf)
			if err != nil {
				return
			}
			must(t, WriteSegment(&bytes.Buffer{}, i, segment))
		}
	})
}

func FuzzPledge(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := UnmarshalPledge(b)
		if err != nil {
			return
		}
		again, err := p.Marshal()
		must(t, err)
		q, err := UnmarshalPledge(again)
		must(t, err)
		if !reflect.DeepEqual(p, q) {
			t.Errorf("got %+v, want %+v", q, p)
		}
		if p.Verify() == nil && q.Verify() != nil {
			t.Error("a pledge loses its signature")
		}
	})
}
