// Package pb holds the generated code of payment messages and of the records that a node keeps.
package pb

//go:generate protoc --go_out=. --go_opt=paths=source_relative payment.proto
