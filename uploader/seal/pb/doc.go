// Package pb holds the generated code of the messages and pledges of storage links.
package pb

//go:generate protoc --go_out=. --go_opt=paths=source_relative storage.proto
