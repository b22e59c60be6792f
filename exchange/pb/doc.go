// Package pb holds the generated code of the exchange's message. The exchange itself reads and
// writes the wire format without it; tests hold the two against each other.
package pb

//go:generate protoc --go_out=. --go_opt=paths=source_relative message.proto
