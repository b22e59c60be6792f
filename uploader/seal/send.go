package seal

import (
	"fmt"
	"io"
	"time"
)

// Stream is a writer's end of a stream to a provider.
type Stream interface {
	io.ReadWriter
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

// Ask sends a request other than [Data] and reads its answer, which may come before the request was
// taken. A refusal is returned as an error, a *[Refusal]. It blocks as long as the stream does: set a
// deadline on it.
func Ask(s io.ReadWriter, r Request, a Answer) error {
	frame, err := appendMessage(nil, r)
	if err != nil {
		return err
	}
	answered := make(chan error, 1)
	go func() { answered <- NewReader(s).ReadAnswer(a) }()
	_, sent := s.Write(frame)
	if err := <-answered; err != nil {
		if sent != nil {
			return fmt.Errorf("write %T: %w", r, sent)
		}
		return err
	}
	return a.Refused()
}

// SendData sends the segments of a set and returns what the provider still misses. It stops sending as
// soon as the provider answers, which it may do early. Segment returns a sealed segment, valid until
// its next call; its error ends the transfer. A refusal is returned as an error, a *[Refusal]. Like
// Ask it blocks as long as the stream does; afterwards the stream can only be closed.
func SendData(s Stream, link LinkID, set Bitmap, segment func(i int) ([]byte, error)) (missing Bitmap, err error) {
	var answer DataAnswer
	answered := make(chan error, 1)
	go func() {
		err := NewReader(s).ReadAnswer(&answer)
		if err == nil {
			_ = s.SetWriteDeadline(time.Unix(1, 0)) // wakes a Write that nobody reads from any more
		}
		answered <- err
	}()
	local, sent := sendAll(s, link, set, segment, answered)
	if local != nil {
		_ = s.SetReadDeadline(time.Unix(1, 0)) // nobody will answer
		<-answered
		return Bitmap{}, local
	}
	if err := <-answered; err != nil {
		if sent != nil {
			return Bitmap{}, sent
		}
		return Bitmap{}, err
	}
	if err := answer.Refused(); err != nil {
		return Bitmap{}, err
	}
	return answer.Missing, nil
}

// sendAll returns segment's error apart from those of the stream, after which an answer may have come.
func sendAll(s Stream, link LinkID, set Bitmap, segment func(i int) ([]byte, error), answered chan error) (local, sent error) {
	if err := WriteMessage(s, &Data{Link: link}); err != nil {
		return nil, err
	}
	for i := set.Next(0); i >= 0 && len(answered) == 0; i = set.Next(i + 1) {
		b, err := segment(i)
		if err != nil {
			return err, nil
		}
		if err := WriteSegment(s, i, b); err != nil {
			return nil, err
		}
	}
	return nil, EndSegments(s)
}
