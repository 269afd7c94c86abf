// Package types has what Felix reads of EC2's answers, and no more.
package types

type AttributeBooleanValue struct{ Value *bool }

type Reservation struct{ Instances []Instance }

type Instance struct{ NetworkInterfaces []InstanceNetworkInterface }

type InstanceNetworkInterface struct {
	Attachment         *InstanceNetworkInterfaceAttachment
	NetworkInterfaceId *string
}

type InstanceNetworkInterfaceAttachment struct{ DeviceIndex *int32 }
