package slogzap

import (
	"log/slog"
	"strconv"
	"time"

	"go.uber.org/zap/zapcore"
)

// encoder collects fields as attributes. It is a zapcore.ObjectEncoder for one
// object, used by one goroutine.
type encoder struct {
	scopes []scope // never empty; the last is the one that is written to
}

func (e *encoder) addFields(fields []zapcore.Field) {
	for _, f := range fields {
		// A handler that looks for errors gets the error, not zap's text of it.
		if err, ok := f.Interface.(error); ok && f.Type == zapcore.ErrorType {
			e.add(f.Key, slog.AnyValue(err))
			continue
		}
		f.AddTo(e)
	}
}

// attrs returns what was added, the namespaces as groups in one another.
func (e *encoder) attrs() []slog.Attr {
	for i := len(e.scopes) - 1; i > 0; i-- {
		s := e.scopes[i]
		outer := &e.scopes[i-1]
		outer.attrs = append(outer.attrs, slog.Attr{Key: s.name, Value: slog.GroupValue(s.attrs...)})
	}
	e.scopes = e.scopes[:1]
	return e.scopes[0].attrs
}

func (e *encoder) add(key string, v slog.Value) {
	s := &e.scopes[len(e.scopes)-1]
	s.attrs = append(s.attrs, slog.Attr{Key: key, Value: v})
}

func (e *encoder) OpenNamespace(key string) {
	e.scopes = append(e.scopes, scope{name: key})
}

func (e *encoder) AddObject(key string, o zapcore.ObjectMarshaler) error {
	inner := newEncoder(nil)
	err := o.MarshalLogObject(inner)
	e.add(key, slog.GroupValue(inner.attrs()...))
	return err
}

// AddArray makes plain slices and maps, since handlers do not look for groups
// inside of a slice.
func (e *encoder) AddArray(key string, a zapcore.ArrayMarshaler) error {
	m := zapcore.NewMapObjectEncoder()
	err := m.AddArray(key, a)
	e.add(key, slog.AnyValue(m.Fields[key]))
	return err
}

func (e *encoder) AddReflected(key string, v any) error {
	e.add(key, slog.AnyValue(v))
	return nil
}

func (e *encoder) AddBinary(key string, v []byte)          { e.add(key, slog.AnyValue(v)) }
func (e *encoder) AddByteString(key string, v []byte)      { e.add(key, slog.StringValue(string(v))) }
func (e *encoder) AddString(key, v string)                 { e.add(key, slog.StringValue(v)) }
func (e *encoder) AddBool(key string, v bool)              { e.add(key, slog.BoolValue(v)) }
func (e *encoder) AddDuration(key string, v time.Duration) { e.add(key, slog.DurationValue(v)) }
func (e *encoder) AddTime(key string, v time.Time)         { e.add(key, slog.TimeValue(v)) }

// Complex numbers become text, as JSON has none.
func (e *encoder) AddComplex128(key string, v complex128) {
	e.add(key, slog.StringValue(strconv.FormatComplex(v, 'g', -1, 128)))
}

func (e *encoder) AddComplex64(key string, v complex64) {
	e.add(key, slog.StringValue(strconv.FormatComplex(complex128(v), 'g', -1, 64)))
}

func (e *encoder) AddFloat64(key string, v float64) { e.add(key, slog.Float64Value(v)) }

// AddFloat32 takes the shortest decimal that means v, so that 0.1 stays 0.1.
func (e *encoder) AddFloat32(key string, v float32) {
	f, err := strconv.ParseFloat(strconv.FormatFloat(float64(v), 'g', -1, 32), 64)
	if err != nil {
		f = float64(v)
	}
	e.add(key, slog.Float64Value(f))
}

func (e *encoder) AddInt(key string, v int)         { e.add(key, slog.Int64Value(int64(v))) }
func (e *encoder) AddInt64(key string, v int64)     { e.add(key, slog.Int64Value(v)) }
func (e *encoder) AddInt32(key string, v int32)     { e.add(key, slog.Int64Value(int64(v))) }
func (e *encoder) AddInt16(key string, v int16)     { e.add(key, slog.Int64Value(int64(v))) }
func (e *encoder) AddInt8(key string, v int8)       { e.add(key, slog.Int64Value(int64(v))) }
func (e *encoder) AddUint(key string, v uint)       { e.add(key, slog.Uint64Value(uint64(v))) }
func (e *encoder) AddUint64(key string, v uint64)   { e.add(key, slog.Uint64Value(v)) }
func (e *encoder) AddUint32(key string, v uint32)   { e.add(key, slog.Uint64Value(uint64(v))) }
func (e *encoder) AddUint16(key string, v uint16)   { e.add(key, slog.Uint64Value(uint64(v))) }
func (e *encoder) AddUint8(key string, v uint8)     { e.add(key, slog.Uint64Value(uint64(v))) }
func (e *encoder) AddUintptr(key string, v uintptr) { e.add(key, slog.Uint64Value(uint64(v))) }
