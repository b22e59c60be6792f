package seal

import (
	"bytes"
	"errors"
	"io"
	"math"
	"net"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/holdfastfs/holdfast/uploader/seal/pb"
)

func sampleMap() Map {
	m, _ := mapOfSize(3)
	m.Bytes -= 5
	return m
}

func sampleRequests(t testing.TB) []Request {
	at := time.Unix(1_800_000_000, 0)
	m := sampleMap()
	return []Request{
		&Quote{}, &Quote{Now: at},
		&StoreRequest{Link: LinkID{1}, Chunk: testCID(t, 1), Descriptor: []byte("descriptor"), Bytes: 77, Price: 5, Expiry: at, Now: at},
		&StoreRequest{Link: LinkID{1}, Chunk: testCID(t, 1), Descriptor: randBytes(1, MaxDescriptorBytes), Bytes: MaxChunkBytes,
			Price: MaxPrice, Expiry: time.Unix(maxTime, 0), Now: at},
		&OpenChannel{Channel: [32]byte{1, 2}}, &Segments{Link: LinkID{2}, Key: Key{3}, Root: m.Root(), Map: m},
		&Data{Link: LinkID{4}}, &SignatureRequest{Link: LinkID{5}}, &Voucher{Link: LinkID{6}, Voucher: []byte{1, 2, 3}},
		&Audit{Chunk: testCID(t, 2), Segments: []uint32{0, 127, 5}, Nonce: Nonce{7}},
		&Renew{Link: LinkID{8}, Chunk: testCID(t, 3), Expiry: at, Price: 9, Now: at}, &Release{Chunk: testCID(t, 4)},
	}
}

func sampleAnswers(t testing.TB) []Answer {
	at := time.Unix(1_800_000_000, 0)
	refused := Refuse(RefusedFull, "no %s", "space")
	set := AllSegments(77)
	m, segments := mapOfSize(100)
	proven := []Proven{{segments[3], m.Prove(3)}, {segments[99], m.Prove(99)}}
	return []Answer{
		&QuoteAnswer{FreeBytes: 1 << 40, PricePerGiBDay: 5, MaxExpiry: at, Region: "eu-west", Now: at}, &QuoteAnswer{Refusal: refused},
		&StoreAnswer{Deadline: 600 * time.Second, Have: set, Stored: true}, &StoreAnswer{Refusal: refused},
		&BasicAnswer{}, &BasicAnswer{Refusal: refused}, &SegmentsAnswer{Missing: set}, &SegmentsAnswer{Refusal: refused},
		&DataAnswer{Missing: set}, &DataAnswer{Refusal: refused}, &SignatureAnswer{Pledge: testPledge(t)}, &SignatureAnswer{Refusal: refused},
		&AuditAnswer{Nonce: Nonce{1}, Segments: proven}, &AuditAnswer{Refusal: refused},
	}
}

func TestMessagesComeBack(t *testing.T) {
	var stream bytes.Buffer
	requests, answers := sampleRequests(t), sampleAnswers(t)
	for _, m := range requests {
		must(t, WriteMessage(&stream, m))
	}
	r := NewReader(iotest.OneByteReader(bytes.NewReader(stream.Bytes())))
	for _, want := range requests {
		got, err := r.ReadRequest(nil)
		must(t, err)
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	if _, err := r.ReadRequest(nil); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
	stream.Reset()
	for _, m := range answers {
		must(t, WriteMessage(&stream, m))
	}
	r = NewReader(iotest.HalfReader(&stream))
	for _, want := range answers {
		got := reflect.New(reflect.TypeOf(want).Elem()).Interface().(Answer)
		must(t, r.ReadAnswer(got))
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
		if err := got.Refused(); (err != nil) != errors.Is(err, &Refusal{Code: RefusedFull}) {
			t.Errorf("refused: %v", err)
		}
	}
}

// A refusal alone can be read as any answer.
func TestRefusalFitsAll(t *testing.T) {
	for _, a := range sampleAnswers(t) {
		var b bytes.Buffer
		must(t, WriteMessage(&b, &BasicAnswer{Refusal: Refuse(RefusedBusy, "later")}))
		got := reflect.New(reflect.TypeOf(a).Elem()).Interface().(Answer)
		must(t, NewReader(&b).ReadAnswer(got))
		var refusal *Refusal
		if !errors.As(got.Refused(), &refusal) || refusal.Code != RefusedBusy || refusal.Error() != "busy: later" {
			t.Errorf("%T: refused: %v", a, got.Refused())
		}
	}
}

func TestRefusalText(t *testing.T) {
	for c := range RefusalCode(255) {
		if (c == 0 || c > lastRefusal) != (c.String() == "refused") || c.String() == "" {
			t.Errorf("code %d is called %q", c, c)
		}
	}
	var b bytes.Buffer
	must(t, WriteMessage(&b, &BasicAnswer{Refusal: &Refusal{Code: 200, Text: "\x1b[2J\xff" + strings.Repeat("é", 300)}}))
	var a BasicAnswer
	must(t, NewReader(&b).ReadAnswer(&a))
	if len(a.Refusal.Text) > MaxRefusalText || strings.ContainsRune(a.Refusal.Text, '\x1b') || a.Refusal.Code != 200 {
		t.Errorf("got %+v", a.Refusal)
	}
}

func TestSegments(t *testing.T) {
	var b bytes.Buffer
	lengths := map[int]int{0: SegmentBytes, 1: 1, 127: SegmentBytes, 64: 500}
	for i, n := range lengths {
		at := b.Len()
		must(t, WriteSegment(&b, i, randBytes(uint64(i), n)))
		var m pb.Segment // the form is protobuf's
		frame := b.Bytes()[at:]
		for frame[0] >= 0x80 {
			frame = frame[1:]
		}
		must(t, proto.Unmarshal(frame[1:], &m))
		if int(m.Index) != i || len(m.Bytes) != n {
			t.Errorf("protobuf reads segment %d of %d bytes, want %d of %d", m.Index, len(m.Bytes), i, n)
		}
	}
	must(t, EndSegments(&b))
	r := NewReader(&b)
	buf := new(SegmentBuffer)
	for range lengths {
		i, got, err := r.ReadSegment(buf)
		must(t, err)
		if !bytes.Equal(got, randBytes(uint64(i), lengths[i])) {
			t.Errorf("segment %d has other bytes", i)
		}
	}
	if _, _, err := r.ReadSegment(buf); err != io.EOF {
		t.Errorf("after the end: %v", err)
	}
	_, _, err := r.ReadSegment(buf)
	wantErr(t, err, io.ErrUnexpectedEOF)
	for i, n := range map[int]int{-1: 1, MaxSegments: 1, 0: 0, 1: SegmentBytes + 1} {
		wantErr(t, WriteSegment(io.Discard, i, make([]byte, n)), ErrMalformed)
	}
}

func TestBadFrames(t *testing.T) {
	frame := func(first byte, n int) []byte {
		b := []byte{byte(n) | 0x80, byte(n>>7) | 0x80, byte(n>>14) | 0x80, byte(n >> 21), first}
		return append(b, make([]byte, min(n, 100))...)
	}
	for name, b := range map[string][]byte{
		"a billion":         frame(4<<3|2, 1<<28-1),
		"large quote":       frame(1<<3|2, smallFrame+1),
		"large store":       frame(2<<3|2, storeFrame+1),
		"large map":         frame(4<<3|2, mapFrame+1),
		"unknown kind":      frame(11<<3|2, 10),
		"not a message":     frame(1<<3, 10),
		"nothing":           {0, 0},
		"long length":       {0x80, 0x80, 0x80, 0x80, 1},
		"cut off bytes":     frame(1<<3|2, 10)[:7],
		"only a length":     {5},
		"length cut off":    {0x80},
		"wrong inside":      {4, 1<<3 | 2, 200, 1, 1},
		"link of two bytes": {6, 5<<3 | 2, 4, 10, 2, 1, 1},
	} {
		_, err := NewReader(bytes.NewReader(b)).ReadRequest(func(n int) error {
			if n > storeFrame {
				t.Errorf("%s: %d bytes are admitted", name, n)
			}
			return nil
		})
		if !errors.Is(err, ErrMalformed) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: got %v", name, err)
		}
		if err := NewReader(bytes.NewReader(b)).ReadAnswer(&AuditAnswer{}); err == nil {
			t.Errorf("%s: read as an answer", name)
		}
	}
	full := errors.New("full")
	_, err := NewReader(bytes.NewReader(frame(1<<3|2, 10))).ReadRequest(func(int) error { return full })
	wantErr(t, err, full)
}

// No field passes its bounds.
func TestBadFields(t *testing.T) {
	good := func() *pb.Store {
		return &pb.Store{Link: make([]byte, 16), Chunk: testCID(t, 1).Bytes(), Descriptor_: []byte{1}, Bytes: 1, Expiry: 1, Now: 1}
	}
	for name, change := range map[string]func(s *pb.Store){
		"link": func(s *pb.Store) { s.Link = make([]byte, 17) }, "no chunk": func(s *pb.Store) { s.Chunk = nil },
		"chunk": func(s *pb.Store) { s.Chunk = []byte{1, 2, 3} }, "long chunk": func(s *pb.Store) { s.Chunk = make([]byte, 500) },
		"no bytes": func(s *pb.Store) { s.Bytes = 0 }, "bytes": func(s *pb.Store) { s.Bytes = math.MaxUint64 },
		"price": func(s *pb.Store) { s.Price = math.MaxUint64 }, "expiry": func(s *pb.Store) { s.Expiry = math.MaxInt64 },
		"now": func(s *pb.Store) { s.Now = -1 }, "descriptor": func(s *pb.Store) { s.Descriptor_ = make([]byte, MaxDescriptorBytes+1) },
	} {
		s := good()
		change(s)
		b, err := proto.Marshal(&pb.Request{Kind: &pb.Request_Store{Store: s}})
		must(t, err)
		_, err = decodeRequest(b)
		if !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	for _, m := range []*pb.SegmentMap{
		{Link: make([]byte, 16), Key: make([]byte, 32), Root: make([]byte, 32), Bytes: 1 << 50, Segments: make([]byte, 32)},
		{Link: make([]byte, 16), Key: make([]byte, 32), Root: make([]byte, 32), Bytes: MaxChunkBytes, Segments: make([]byte, 32)},
		{Link: make([]byte, 16), Key: make([]byte, 32), Root: make([]byte, 32), Bytes: 1, Segments: make([]byte, 33)},
		{Link: make([]byte, 16), Key: make([]byte, 32), Root: make([]byte, 32), Bytes: MaxChunkBytes, Segments: make([]byte, 32*129)},
	} {
		b, err := proto.Marshal(&pb.Request{Kind: &pb.Request_Segments{Segments: m}})
		must(t, err)
		_, err = decodeRequest(b)
		wantErr(t, err, ErrMalformed)
	}
	for _, segments := range [][]uint32{nil, make([]uint32, MaxAuditSegments+1), {MaxSegments}} {
		b, err := (&Audit{Chunk: testCID(t, 1), Segments: segments}).encode()
		must(t, err)
		_, err = decodeRequest(b)
		wantErr(t, err, ErrMalformed)
	}
	many := bytes.Repeat([]byte{3<<3 | 2, 0}, MaxAuditSegments+1)
	wantErr(t, (&AuditAnswer{}).decode(many), ErrMalformed)
	wantErr(t, (&StoreAnswer{}).decode([]byte{2 << 3, 0xff, 0xff, 0xff, 0xff, 0x7f}), ErrMalformed)
	wantErr(t, (&SignatureAnswer{}).decode(nil), ErrMalformed)
}

func TestSendDataEndsEarly(t *testing.T) {
	boom := errors.New("boom")
	all := AllSegments(100)
	segment := func(int) ([]byte, error) { return make([]byte, SegmentBytes), nil }
	t.Run("refused", func(t *testing.T) {
		ours, theirs := net.Pipe()
		done := make(chan error, 1)
		go func() { // reads the request alone and answers
			if _, err := NewReader(theirs).ReadRequest(nil); err != nil {
				done <- err
				return
			}
			done <- WriteMessage(theirs, &BasicAnswer{Refusal: Refuse(RefusedUnknownLink, "")})
		}()
		_, err := SendData(ours, LinkID{1}, all, segment)
		must(t, <-done)
		wantErr(t, err, &Refusal{Code: RefusedUnknownLink})
		must(t, errors.Join(ours.Close(), theirs.Close()))
	})
	t.Run("own error", func(t *testing.T) {
		ours, theirs := net.Pipe()
		done := make(chan error, 1)
		go func() { _, err := io.Copy(io.Discard, theirs); done <- err }()
		_, err := SendData(ours, LinkID{1}, all, func(i int) ([]byte, error) {
			if i == 5 {
				return nil, boom
			}
			return segment(i)
		})
		wantErr(t, err, boom)
		must(t, ours.Close())
		must(t, <-done)
	})
	t.Run("gone", func(t *testing.T) {
		ours, theirs := net.Pipe()
		must(t, theirs.Close())
		if _, err := SendData(ours, LinkID{1}, all, segment); err == nil {
			t.Error("sent to nobody")
		}
		must(t, ours.Close())
	})
}

func TestAsk(t *testing.T) {
	ours, theirs := net.Pipe()
	done := make(chan error, 1)
	go func() {
		q, err := NewReader(theirs).ReadRequest(nil)
		if err == nil && q.(*Quote).Now.Unix() != 5 {
			err = errors.New("another request")
		}
		done <- errors.Join(err, WriteMessage(theirs, &QuoteAnswer{FreeBytes: 7}))
	}()
	var a QuoteAnswer
	must(t, Ask(ours, &Quote{Now: time.Unix(5, 0)}, &a))
	must(t, <-done)
	if a.FreeBytes != 7 {
		t.Errorf("got %+v", a)
	}
	must(t, errors.Join(ours.Close(), theirs.Close()))
}
