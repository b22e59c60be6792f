// Package pb holds the generated code of the uploader's records.
package pb

//go:generate protoc --go_out=. --go_opt=paths=source_relative state.proto
