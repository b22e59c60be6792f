package repo

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/dustin/go-humanize"

	"github.com/holdfastfs/holdfast/exchange"
)

// Limits are the bounds of a node's exchange that have no setting of their own. Zero fields are its defaults.
type Limits struct {
	Exchange exchange.Limits        // names as they are: active-peers
	Serve    exchange.ServeConfig   // names begin with serve-: serve-max-wants
	Network  exchange.NetworkConfig // names begin with network-: network-streams-per-peer
}

// ParseLimits reads lines of name=value.
func ParseLimits(lines []string) (l Limits, err error) {
	fields := l.fields()
	for _, line := range lines {
		name, value, ok := strings.Cut(line, "=")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		field, known := fields[name]
		switch {
		case !ok:
			return Limits{}, fmt.Errorf("%q is not name=value", line)
		case !known:
			return Limits{}, fmt.Errorf("there is no limit %q", name)
		}
		if err := setLimit(field, value); err != nil {
			return Limits{}, fmt.Errorf("limit %s: %w", name, err)
		}
	}
	return l, nil
}

// LimitName is how people write the name of a Go field: active-peers for ActivePeers.
func LimitName(field string) string {
	var b strings.Builder
	runes := []rune(field)
	for i, r := range runes {
		if unicode.IsUpper(r) && i > 0 && (unicode.IsLower(runes[i-1]) || i+1 < len(runes) && unicode.IsLower(runes[i+1])) {
			b.WriteByte('-')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

// fields are all that can be set, by name.
func (l *Limits) fields() map[string]reflect.Value {
	all := make(map[string]reflect.Value)
	for prefix, of := range map[string]any{"": &l.Exchange, "serve-": &l.Serve, "network-": &l.Network} {
		v := reflect.ValueOf(of).Elem()
		for i := range v.NumField() {
			switch f := v.Type().Field(i); f.Type.Kind() {
			case reflect.Int, reflect.Int64:
				if f.IsExported() {
					all[prefix+LimitName(f.Name)] = v.Field(i)
				}
			}
		}
	}
	return all
}

// setLimit gives a field a value: a duration, or a count that may be written as bytes are.
func setLimit(field reflect.Value, value string) error {
	if field.Type() == reflect.TypeFor[time.Duration]() {
		d, err := time.ParseDuration(value)
		if err != nil || d <= 0 {
			return fmt.Errorf("%q is not a duration such as 500ms", value)
		}
		field.SetInt(int64(d))
		return nil
	}
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		bytes, berr := humanize.ParseBytes(value)
		n, err = int64(bytes), berr
	}
	if err != nil || n <= 0 || n > 1<<40 {
		return fmt.Errorf("%q is not a number from 1 on, or a size such as 64MiB", value)
	}
	field.SetInt(n)
	return nil
}
