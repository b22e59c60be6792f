package erasure

// vectors are the CIDs of the manifest that smallManifest writes, and of its chunks. They follow from
// the formats alone: if they change, so has a format.
var vectors = []string{
	"bafyreidoipqvbfz6hu6gd4zxbod6yvyiowcc7b2dnr3p4aemi7xbx4x7vm",
	"bafyreifnqm3aoq3l5anef3ttdlerljp55yolplvhrariewogqx63ycukyu",
	"bafyreidfeg6i5ntlib6jrod2eb753lv4x5xyngeoldmfnsftb4w4yew44q",
	"bafyreieozoztvm6zhmzusfpxxns52hwantiyjarzv6o6denpa3hvvvcc7e",
	"bafyreic5ovi4xniffrsn4pvbafmgrx3e6i6w6s4be4zvmkwubmeszfbg54",
	"bafyreibfjnqn4ywjikuicvdxkkq5smqt7lklri3x43dw7ol7bo6gh62hjq",
	"bafyreielh6myqtebpo3r5njy3ppvd2lahiqvaw7drfcvgia3bdwfajdrvm",
}
