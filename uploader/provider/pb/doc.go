// Package pb holds the generated code of the records that a provider keeps.
package pb

//go:generate protoc -I ../../.. --go_out=../../.. --go_opt=paths=source_relative uploader/provider/pb/state.proto
