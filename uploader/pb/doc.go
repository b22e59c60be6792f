// Package pb holds the generated code of the uploader's records.
package pb

//go:generate protoc -I ../.. --go_out=../.. --go_opt=paths=source_relative uploader/pb/state.proto
